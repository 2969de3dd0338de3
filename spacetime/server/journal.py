"""What the server says of itself: one JSON object a line on stderr, through stdlib logging."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Any, Protocol

from spacetime.server.trace import REQUEST_ID, Trace

_MOST = 200  # characters of what a client chose
_FAULTS = 500
# The first three warn of what clients send, the last of answers that are not their models'.
LIBRARIES = ("asyncio", "grpc", "uvicorn", "spacetime.audit")
log = logging.getLogger("spacetime.server")


class Logged(Protocol):
    """What is said of a request."""

    method: str
    path: str
    model: str
    request: str

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...
    @property
    def trace(self) -> Trace | None: ...


def named(call: Logged) -> str:
    """A request's id, the protocol's or the header's, as far as a line has room for it."""
    asked = call.request or call.headers.get(REQUEST_ID, b"").decode("latin-1")
    return asked[:_MOST]


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, event, and the fields given with it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_to(stream: IO[str] = sys.stderr) -> None:
    """Sends the journal to a stream. A stream that fails (a full disk) stops no request."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for heard in (log, *map(logging.getLogger, LIBRARIES)):
        heard.handlers[:] = [handler]
        heard.propagate = False
    log.setLevel(logging.INFO)


class Journal:
    """Notes requests: all of them, or only those that end in a fault of the server."""

    def __init__(self, *, every: bool = False) -> None:
        self._every = every

    def now(self) -> int:
        """A moment, for `answered`."""
        return time.monotonic_ns()

    def answered(self, call: Logged, status: int, start_ns: int) -> None:
        """A request has its answer, or its client has gone (499)."""
        if self._every or (status >= _FAULTS and status not in {503, 504}):
            fields = self._fields(call) | {
                "status": status, "ms": (time.monotonic_ns() - start_ns) / 1e6,
            }  # fmt: skip
            log.info("request", extra={"fields": fields})

    def fault(self, call: Logged) -> None:
        """A request met a defect of the server."""
        log.exception("fault", extra={"fields": self._fields(call)})

    def _fields(self, call: Logged) -> dict[str, Any]:
        fields = {"method": call.method, "path": call.path[:_MOST]}
        if call.model:
            fields["model"] = call.model[:_MOST]
        if asked := named(call):
            fields["request_id"] = asked
        if (traced := call.trace) is not None:
            fields |= {
                "trace_id": traced.trace, "parent_id": traced.parent, "span_id": traced.span,
            }  # fmt: skip
        return fields
