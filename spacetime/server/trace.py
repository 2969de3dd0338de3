"""Whose request this is: the id its client gave it, and the trace it belongs to (W3C Trace Context
level 1, section 3). What is malformed does not count, and nothing of it is sent back."""

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
    """A request's place in its trace: the caller's span is `parent`, the one here is `span`."""

    trace: str
    parent: str
    span: str
    flags: str

    def header(self) -> tuple[bytes, bytes]:
        """The `traceparent` of whoever is called, or answered, from here."""
        return TRACEPARENT, f"00-{self.trace}-{self.span}-{self.flags}".encode()


def trace_of(headers: Mapping[bytes, bytes]) -> Trace | None:
    """The trace that a request's headers name, with a span of its own; None where they do not."""
    given = headers.get(TRACEPARENT)
    found = None if given is None else _PARENT.fullmatch(given)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == _INVALID_VERSION or (version == b"00" and more is not None):
        return None
    if not (trace.strip(b"0") and parent.strip(b"0")):
        return None
    return Trace(trace.decode(), parent.decode(), secrets.token_hex(8), flags.decode())


def echoed(headers: Mapping[bytes, bytes], trace: Trace | None) -> list[tuple[bytes, bytes]]:
    """What an answer says of whose it is."""
    asked = headers.get(REQUEST_ID)
    found = [] if trace is None else [trace.header()]
    if asked is not None and _ID.fullmatch(asked):
        found.append((REQUEST_ID, asked))
    return found
