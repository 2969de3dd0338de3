"""The id that a client gave its request, and the trace the request belongs to.

The header `traceparent` is read as W3C Trace Context, level 1, section 3, says. A malformed header
is ignored, and nothing of it is sent back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

REQUEST_ID, TRACEPARENT = b"x-request-id", b"traceparent"
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_INVALID_VERSION = b"ff"


@dataclass(frozen=True, slots=True)
class Trace:
    """A request's place in its trace, in hexadecimal digits.

    parent: the caller's span. span: the server's own span of this request.
    """

    trace: str
    parent: str
    span: str
    flags: str

    def header(self) -> tuple[bytes, bytes]:
        """Returns the header `traceparent` that names this server's span."""
        return TRACEPARENT, f"00-{self.trace}-{self.span}-{self.flags}".encode()


def trace_of(headers: Mapping[bytes, bytes]) -> Trace | None:
    """Returns the trace that a request's headers name, with a new span; None if they name none."""
    given = headers.get(TRACEPARENT)
    match = None if given is None else _PARENT.fullmatch(given)
    if match is None:
        return None
    version, trace, parent, flags, more = match.groups()
    if version == _INVALID_VERSION or (version == b"00" and more is not None):
        return None
    if not (trace.strip(b"0") and parent.strip(b"0")):
        return None
    return Trace(trace.decode(), parent.decode(), secrets.token_hex(8), flags.decode())


def echoed(headers: Mapping[bytes, bytes], trace: Trace | None) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an answer that name its request's trace and id, where it had them."""
    own = headers.get(REQUEST_ID)
    answered = [] if trace is None else [trace.header()]
    if own is not None and _ID.fullmatch(own):
        answered.append((REQUEST_ID, own))
    return answered
