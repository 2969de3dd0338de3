"""LitServe, with its dynamic batching, as a way to dispatch: a server process and its clients.

It is reached over HTTP only: what it costs includes that.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

READY_S = 60.0


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)

    def call(self) -> None:
        """One request and its answer."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/predict", body="{}", headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"litserve answered {answer.status}")


def available() -> bool:
    """Whether litserve is installed."""
    return find_spec("litserve") is not None


@contextmanager
def serving() -> Iterator[int]:
    """A server in a process of its own; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "spacetime.benchmarks.litserve_noop", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        _wait_until_ready(port)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its workers would outlive it
        process.wait(timeout=READY_S)


def _wait_until_ready(port: int) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with suppress(OSError, RuntimeError, http.client.HTTPException):
            Client(port).call()
            return
        time.sleep(0.1)
    raise RuntimeError(f"litserve did not answer on port {port} within {READY_S:.0f} s")
