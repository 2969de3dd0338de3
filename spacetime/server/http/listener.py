"""A port that speaks HTTP: uvicorn, with the bounds it lacks against slow and greedy clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from spacetime.errors import InvalidInput
from spacetime.server.http.body import CLOSE
from spacetime.server.http.exchange import Exchange
from spacetime.server.http.intake import Answer
from spacetime.server.http.messages import Headers
from spacetime.server.limits import Limits
from spacetime.server.tls import Tls

MOST_HEAD_BYTES = 64 << 10  # of a request's line and headers
MOST_JOINED_BYTES = 64 << 10  # an answer up to this size goes out in one write
GRACE_SECONDS = 5  # for answers that are still being sent when every accepted request has ended
LINGER_SECONDS = 1  # how long what a refused client still sends is read: see _linger

Direct = Callable[[bytes, bytes, Headers], Exchange | None]


class Protocol(HttpToolsProtocol):
    """One connection of a port.

    It is refused where too many are open, and closed where a request comes too slowly or its answer
    is not taken. It answers itself what `direct` takes; everything else goes through ASGI.
    """

    limits = Limits()
    direct: Direct = staticmethod(lambda _method, _path, _headers: None)
    _exchange: Exchange | None = None  # that is under way
    _patience: asyncio.TimerHandle | None = None  # fires where a request has not arrived in time
    _unread: asyncio.TimerHandle | None = None  # fires where the client does not read its answer
    _lingers: asyncio.TimerHandle | None = None  # closes a connection that was refused
    _head_bytes = 0  # of a head that is not complete
    lingering: set[Protocol]  # refused, and not closed by their clients yet

    def connection_made(self, transport: Any) -> None:
        """Takes the connection, or refuses it where too many are open."""
        super().connection_made(transport)
        # Those that only linger do not count: a crowd of refused clients must not keep others out.
        if len(self.connections) - len(self.lingering) > self.limits.connections:
            self._refuse(
                b"503 Service Unavailable", "too many connections; retry", b"retry-after: 1\r\n"
            )
        else:
            self._wait(self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request, and gives the rest of its head or body time to arrive."""
        if self._closing:
            return
        super().data_received(data)
        if self._exchange is not None and self._exchange.arriving:
            self._wait(self._exchange.expire)
        elif self._idle and self.timeout_keep_alive_task is None:  # the head is not complete yet
            self._wait(self._too_slow)
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large", "the headers are too large")

    def on_message_begin(self) -> None:
        """Begins a request; ASGI's scope is made once it is known to be needed."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Takes a complete head, and decides who answers: an Exchange, or ASGI's way."""
        self._stop_waiting()
        if self._closing:
            return
        exchange = self._taken() if self._idle else None
        if exchange is None:
            head = self.url, self.expect_100_continue, self.headers
            super().on_message_begin()
            self.url, self.expect_100_continue, self.headers = head
            self.scope["headers"] = self.headers
            super().on_headers_complete()
            return
        exchange.reply = self._reply
        exchange.keep_alive = self.parser.should_keep_alive()
        self.cycle = self._exchange = exchange  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body, unless the request was refused."""
        if self._exchange is not None and self._exchange.arriving:
            self._exchange.add(body)
        elif not self._closing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Takes the end of a request, unless it was refused."""
        if self._exchange is not None and self._exchange.arriving:
            self._stop_waiting()
            self._exchange.complete()
        elif not self._closing:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends what was under way, since the client has gone."""
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        if self._lingers is not None:
            self._lingers.cancel()
        self.lingering.discard(self)
        if self._exchange is not None:
            self._exchange.abandon()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Stops reading from a client that has stopped reading.

        It may ask nothing more until it reads again; it has Limits.read_seconds for that, as a
        request has to arrive. Else answers that nobody takes would fill the memory.
        """
        super().pause_writing()
        self.flow.pause_reading()
        self._unread = self.loop.call_later(self.limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Reads again from a client that reads again."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
            self.flow.resume_reading()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection without a request for too long, with what its client has not read."""
        self.transport.abort()

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _closing(self) -> bool:
        """Whether no more requests are read."""
        return self._lingers is not None or self.transport.is_closing()

    def _taken(self) -> Exchange | None:
        """Returns the exchange that answers the request whose head is here; None for ASGI's way."""
        if self.expect_100_continue or self.parser.should_upgrade() or self.flow.write_paused:
            return None  # ASGI's way waits for the client to read
        return self.direct(self.parser.get_method(), self.url, self.headers)

    def _reply(self, exchange: Exchange, answer: Answer) -> None:
        status, headers, pieces = answer
        keep = exchange.keep_alive and CLOSE[0] not in headers
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        if not keep and CLOSE[0] not in headers:
            lines.append(b"connection: close\r\n")
        length = sum(map(len, pieces))
        lines.append(b"content-length: %d\r\n\r\n" % length)
        if length <= MOST_JOINED_BYTES:  # one write: the client wakes once
            self.transport.write(b"".join((*lines, *pieces)))
        else:
            self.transport.writelines((b"".join(lines), *pieces))
        exchange.response_complete = True
        self._exchange = None
        if not keep:
            self.transport.close()
        self.on_response_complete()
        # After uvicorn's own end of a response, which has just resumed reading.
        if self._unread is not None:
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP at all as everything else is refused: in JSON."""
        self._refuse(b"400 Bad Request", msg)

    def _wait(self, then: Callable[[], None]) -> None:
        """Calls then() in Limits.read_seconds, unless the time is running already.

        It is not begun anew with each byte: a client that sends one a second would never end.
        """
        if self._patience is None:
            self._patience = self.loop.call_later(self.limits.read_seconds, then)

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        self._patience = None
        self._refuse(b"408 Request Timeout", "the request did not arrive in time")

    def _refuse(self, status: bytes, text: str, headers: bytes = b"") -> None:
        self._stop_waiting()
        if not self._closing:
            body = b'{"error":"%s"}' % text.encode()
            self.transport.write(
                b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)
            )
            self._linger()

    def _linger(self) -> None:
        """Ends what is written, and reads on until the client closes, for a while at most.

        The system answers bytes that nobody reads with a reset, and a reset makes the client's
        system throw away the refusal that it has not read yet.
        """
        if not self.transport.can_write_eof() or len(self.lingering) >= self.limits.connections:
            self.transport.close()
            return
        self.transport.write_eof()
        self.lingering.add(self)
        self._lingers = self.loop.call_later(LINGER_SECONDS, self.transport.close)


class Listener(uvicorn.Server):
    """One port with an ASGI application. The process handles the signals, not uvicorn.

    direct: what may answer a request by its head without ASGI; see Application.exchange.
    """

    def __init__(
        self,
        app: Any,
        bound: socket.socket,
        limits: Limits,
        tls: Tls | None,
        direct: Direct = Protocol.direct,
    ) -> None:
        parts = {"limits": limits, "direct": staticmethod(direct), "lingering": set()}
        # A class for each listener, since uvicorn makes the connections itself, from a class.
        kind = type("BoundedProtocol", (Protocol,), parts)
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
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
            )
        )
        self._bound = bound

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Installs no handler of signals."""
        yield

    async def run_until_told(self) -> None:
        """Serves until `should_exit` is set, then until every answer is sent or nobody takes it."""
        await self.serve(sockets=[self._bound])


def bind(field: str, host: str, port: int) -> socket.socket:
    """Returns a socket bound to `host` and `port`; port 0 takes any free port.

    Raises InvalidInput naming `field` where the port is in use, or naming the host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (socket.gaierror, UnicodeError) as error:
        raise _no_host(host, getattr(error, "strerror", None) or str(error)) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_host(host, reason) from None
        expected = f"free on {host} (another --{field.replace('_', '-')}, or 0 for any)"
        raise InvalidInput("-", field, expected, f"{port}: {reason}") from None


def _no_host(host: str, reason: str) -> InvalidInput:
    return InvalidInput("-", "host", "a name or address of this machine", f"{host!r}: {reason}")
