"""A port that speaks HTTP: uvicorn, with the bounds it lacks against slow and greedy clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spacetime.errors import InvalidInput
from spacetime.server.limits import Limits
from spacetime.server.tls import Tls

MOST_HEAD_BYTES = 64 << 10


class Protocol(HttpToolsProtocol):
    """One connection: refused where there are too many, closed where a request comes too slowly."""

    limits = Limits()
    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Takes the connection, or says that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(
                b"503 Service Unavailable", "too many connections; retry", b"retry-after: 1\r\n"
            )
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; from its first one the whole head has its time to arrive."""
        if self.transport.is_closing():
            return
        if self._patience is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
        super().data_received(data)
        if self._patience is not None:  # the head is not complete yet
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large", "the headers are too large")

    def on_headers_complete(self) -> None:
        """The head is here; the application bounds the time of the body."""
        self._stop_waiting()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, unless the request was refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request, unless it was refused."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP at all is refused like everything else: in JSON."""
        self._refuse(b"400 Bad Request", msg)

    def _wait(self) -> None:
        self._head_bytes = 0
        self._patience = self.loop.call_later(self.limits.read_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        self._refuse(b"408 Request Timeout", "the request did not arrive in time")

    def _refuse(self, status: bytes, text: str, headers: bytes = b"") -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            body = b'{"error":"%s"}' % text.encode()
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)
            )
            self.transport.close()


class Listener(uvicorn.Server):
    """One port with an ASGI application; the process, not uvicorn, minds the signals."""

    def __init__(self, app: Any, bound: socket.socket, limits: Limits, tls: Tls | None) -> None:
        kind = type("BoundedProtocol", (Protocol,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                app,
                http=kind,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(limits.idle_seconds),
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
            )
        )
        self._bound = bound

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no handler."""
        yield

    async def run_until_told(self) -> None:
        """Serves until `should_exit`, then until every answer is sent."""
        await self.serve(sockets=[self._bound])


def bind(field: str, host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any. Raises InvalidInput naming `field`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        expected = f"free on {host} (another --{field.replace('_', '-')}, or 0 for any)"
        raise InvalidInput("-", field, expected, f"{port}: {reason}") from None
