"""The server's journal: one JSON object a line on stderr, through Python's logging."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import IO, Any, Protocol

from spacetime.server.trace import REQUEST_ID, Trace

_MOST_CHARACTERS = 200  # of a text that a client chose: its path, model and request id
_LEAST_FAULT = 500  # HTTP statuses from here on are the server's, not the client's
_NO_FAULTS = {503, 504}  # stopping, and a deadline that passed: neither is a defect
# The first three warn of what clients send, the last of answers that are not their models'.
LIBRARIES = ("asyncio", "grpc", "uvicorn", "spacetime.audit")
log = logging.getLogger("spacetime.server")


class Logged(Protocol):
    """A request as the journal notes it. `request` is the id its client gave in the message."""

    method: str
    path: str
    model: str
    request: str

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...
    @property
    def trace(self) -> Trace | None: ...


def request_id(call: Logged) -> str:
    """The id a client gave its request, cut to 200 characters; empty where it gave none.

    The id in the message (the protocol's `id`) comes before the header `X-Request-Id`.
    """
    own = call.request or call.headers.get(REQUEST_ID, b"").decode("latin-1")
    return own[:_MOST_CHARACTERS]


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON: time, level, event, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without a line end. `time` is UTC in ISO 8601, to the microsecond."""
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
    """Sends the journal, and what LIBRARIES log, to `stream`."""
    # A stream that fails, such as one on a full disk, must not stop a request.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for heard in (log, *map(logging.getLogger, LIBRARIES)):
        heard.handlers[:] = [handler]
        heard.propagate = False
    log.setLevel(logging.INFO)


class Journal:
    """Notes requests: all of them with `every`, else only those that end in a server's fault."""

    def __init__(self, *, every: bool = False) -> None:
        self._every = every

    def now(self) -> int:
        """Returns the current time in ns, of the clock that `answered` measures a request with."""
        return time.monotonic_ns()

    def answered(self, call: Logged, status: int, start_ns: int) -> None:
        """Notes a request that has its answer, or whose client has gone (status 499).

        status: the HTTP status, also of a gRPC call. start_ns: what `now` returned when it began.
        """
        if self._every or (status >= _LEAST_FAULT and status not in _NO_FAULTS):
            fields = self._fields(call) | {
                "status": status, "ms": (time.monotonic_ns() - start_ns) / 1e6,
            }  # fmt: skip
            log.info("request", extra={"fields": fields})

    def fault(self, call: Logged) -> None:
        """Notes a request that met a defect of the server; called from inside the `except`."""
        log.exception("fault", extra={"fields": self._fields(call)})

    def _fields(self, call: Logged) -> dict[str, Any]:
        fields = {"method": call.method, "path": call.path[:_MOST_CHARACTERS]}
        if call.model:
            fields["model"] = call.model[:_MOST_CHARACTERS]
        if own := request_id(call):
            fields["request_id"] = own
        if (traced := call.trace) is not None:
            fields |= {
                "trace_id": traced.trace, "parent_id": traced.parent, "span_id": traced.span,
            }  # fmt: skip
        return fields
