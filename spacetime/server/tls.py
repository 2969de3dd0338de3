"""The certificate and key of a server that speaks TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from spacetime.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files, checked to be a pair when made. Raises InvalidInput naming the field."""

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        for field, path in (("tls_cert", self.certificate), ("tls_key", self.key)):
            if not path.is_file():
                raise InvalidInput("-", field, "a PEM file", f"{path}: there is none")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            got = f"{self.certificate} and {self.key}: {error.strerror or error}"
            raise InvalidInput("-", "tls_cert", "a certificate with its key, as PEM", got) from None


def tls_of(certificate: Path | None, key: Path | None) -> Tls | None:
    """TLS where both files are named, none where neither is. Raises InvalidInput."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        field = "tls_key" if key is None else "tls_cert"
        raise InvalidInput("-", field, "given with the other one", "nothing")
    return Tls(certificate, key)
