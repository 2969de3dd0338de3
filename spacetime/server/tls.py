"""The certificate and key of a server that speaks TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from spacetime.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate and its key, as PEM files that are checked to belong together.

    Raises InvalidInput naming the field.
    """

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        for field, path in (("tls_cert", self.certificate), ("tls_key", self.key)):
            if not path.is_file():
                raise InvalidInput("-", field, "a PEM file", f"{path}: there is none")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            files = f"{self.certificate} and {self.key}: {error.strerror or error}"
            expected = "a certificate with its key, as PEM"
            raise InvalidInput("-", "tls_cert", expected, files) from None


def tls_of(certificate: Path | None, key: Path | None) -> Tls | None:
    """Returns the pair where both files are named, None where neither is.

    Raises InvalidInput naming the field where one is missing or they are no pair.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        field = "tls_key" if key is None else "tls_cert"
        raise InvalidInput("-", field, "given with the other one", "nothing")
    return Tls(certificate, key)
