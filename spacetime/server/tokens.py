"""Bearer tokens: which clients may ask, where the server was given a file of tokens."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from pathlib import Path

from spacetime.errors import InvalidInput
from spacetime.server.refusal import Refusal, RefusalKind

_ASK = ((b"www-authenticate", b"Bearer"),)
SHORTEST = 16  # characters of a token: shorter ones could be guessed


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that are allowed; any of them will do. Without any, every client may ask.

    The health checks of the server need no token.
    """

    allowed: tuple[bytes, ...] = ()

    def check(self, authorization: bytes | None) -> None:
        """Raises Refusal unless `authorization`, the header's value, holds an allowed token."""
        if not self.allowed:
            return
        scheme, _, given = (authorization or b"").partition(b" ")
        # Every token is compared in full: the time taken tells nothing.
        matches = [hmac.compare_digest(given.strip(), token) for token in self.allowed]
        if scheme.lower() != b"bearer" or not any(matches):
            raise Refusal(
                RefusalKind.UNAUTHENTICATED, "Authorization: a bearer token is needed", _ASK
            )


def read_tokens(path: Path) -> Tokens:
    """Returns the tokens of a file: one a line, but for empty lines and those that start with #.

    Raises InvalidInput naming the file where it cannot be read, or holds no token or a weak one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    tokens = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not tokens:
        raise _wrong(path, "holds none")
    for token in tokens:
        if len(token) < SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
            raise _wrong(path, "holds one that is shorter, or has characters no header carries")
    return Tokens(tuple(token.encode() for token in tokens))


def _wrong(path: Path, problem: str) -> InvalidInput:
    expected = f"a file with a token of at least {SHORTEST} characters a line"
    return InvalidInput("-", "token_file", expected, f"{path}, which {problem}")
