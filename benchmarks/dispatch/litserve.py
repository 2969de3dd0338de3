"""LitServe, with its dynamic batching, as a way to dispatch: a server process and its clients.

It is reached over HTTP only: what it costs includes that.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from spacetime.benchmarks.driving.server_process import (
    READY_S,
    Way,
    first_answer,
    free_port,
    process,
)


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)

    def call(self) -> None:
        """Sends one request and reads its answer. Raises RuntimeError unless it is a success."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/predict", body="{}", headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"litserve answered {answer.status}")


@contextmanager
def serving() -> Iterator[int]:
    """Yields the port of a server in a process of its own, once it answers."""
    port = free_port()
    with process([sys.executable, "-m", "spacetime.benchmarks.dispatch.litserve_noop", str(port)]):
        first_answer(Way(port, "/predict", b"{}"))
        yield port
