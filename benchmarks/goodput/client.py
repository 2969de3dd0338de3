"""The client process of `bench goodput`: an open loop of HTTP requests over many connections.

python -m spacetime.benchmarks.goodput.client < ORDER: a JSON line `{"port", "wires", "due_ns",
"tenants", "patience_s"}`, `wires` in base 64 and by tenant. A request leaves when it is due, on a
connection that is free or a new one; its latency counts from when it was due. `patience_s` after
the last was due, what is open is given up. Prints `{"statuses", "latencies_ns", "late_ns"}`: a
status is HTTP's, 0 for no answer; `late_ns` is how long after its due time a request left.
With `{"each", "seconds"}` instead of `due_ns`, a closed loop: so many connections a tenant.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MOST = 900  # connections: our server allows 1000
LEAD_S = 0.05


class ProtocolConnection(asyncio.Protocol):
    """One connection that is kept open, with one request at a time under way."""

    def __init__(self) -> None:
        self._got = b""
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[int], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport: the connection is open."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, wire: bytes, done: Callable[[int], None]) -> None:
        """Sends a request; `done` is called with its status."""
        self._done, self._got = done, b""
        if self._transport is None or self._transport.is_closing():
            self._end(0)
        else:
            self._transport.write(wire)

    def data_received(self, data: bytes) -> None:
        """Takes more of an answer, which may complete it."""
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self._got, 0, head + 2)
        if length is not None and len(self._got) >= head + 4 + int(length[1]):
            self._end(int(self._got[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the request under way: the server closed the connection, or this side did."""
        self._transport = None
        self._end(0)

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def open(self) -> bool:
        """Whether the connection can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def _end(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status)


class OpenLoop:
    """Requests that leave when they are due, and what became of each."""

    def __init__(self, order: dict[str, Any], wires: Sequence[bytes]) -> None:
        self._port, self._wires = order["port"], wires
        self._due_ns, self._tenants = order["due_ns"], order["tenants"]
        self._patience_s = order["patience_s"]
        self._free: list[ProtocolConnection] = []
        self._all: list[ProtocolConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        count = len(self._due_ns)
        self.statuses, self.latencies_ns, self.late_ns = [0] * count, [0] * count, [0] * count
        self._left = count
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Sends every request when it is due, then waits `patience_s` for answers."""
        for _ in range(len(self._wires)):
            await self._opened()
        self._start_ns = time.perf_counter_ns() + round(LEAD_S * 1e9)
        for number, due_ns in enumerate(self._due_ns):
            wait_ns = self._start_ns + due_ns - time.perf_counter_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / 1e9)
            self._send(number)
            if wait_ns <= 0 and number % 16 == 0:
                await asyncio.sleep(0)  # a client that is behind reads its answers all the same
        if self._left:
            with_patience = asyncio.wait_for(self._ended.wait(), self._patience_s)
            await asyncio.gather(with_patience, return_exceptions=True)
        for connection in self._all:
            connection.close()

    def _send(self, number: int) -> None:
        self.late_ns[number] = time.perf_counter_ns() - self._start_ns - self._due_ns[number]
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return self._ask(connection, number)
        opening = asyncio.ensure_future(self._ask_new(number))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return None

    async def _ask_new(self, number: int) -> None:
        if len(self._all) >= MOST:
            return self._note(number, 0)
        try:
            await self._opened()
        except OSError:
            return self._note(number, 0)
        return self._ask(self._free.pop(), number)

    async def _opened(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            ProtocolConnection, "127.0.0.1", self._port
        )
        self._all.append(connection)
        self._free.append(connection)

    def _ask(self, connection: ProtocolConnection, number: int) -> None:
        def done(status: int) -> None:
            if connection.open:
                self._free.append(connection)
            self._note(number, status)

        connection.ask(self._wires[self._tenants[number]], done)

    def _note(self, number: int, status: int) -> None:
        due_ns = self._start_ns + self._due_ns[number]
        self.statuses[number] = status
        self.latencies_ns[number] = time.perf_counter_ns() - due_ns
        self._left -= 1
        if not self._left:
            self._ended.set()


async def closed_loop(order: dict[str, Any], wires: Sequence[bytes]) -> int:
    """Asks over every connection again as soon as it is answered; returns answers in the window.

    The first fifth of `seconds` comes before the window.
    """
    answered, loop = 0, asyncio.get_running_loop()
    begin = time.perf_counter() + order["seconds"] / 5
    end = begin + order["seconds"]

    async def ask_on(wire: bytes) -> None:
        nonlocal answered
        _, connection = await loop.create_connection(ProtocolConnection, "127.0.0.1", order["port"])
        while time.perf_counter() < end and connection.open:
            ended: asyncio.Future[int] = loop.create_future()
            connection.ask(wire, ended.set_result)
            status = await ended
            answered += status == 200 and begin <= time.perf_counter() < end
        connection.close()

    await asyncio.gather(*(ask_on(wire) for wire in wires for _ in range(order["each"])))
    return answered


def main() -> None:
    """Does what the order on the standard input says, and prints what came of it."""
    order = json.load(sys.stdin)
    wires = [base64.b64decode(wire) for wire in order["wires"]]
    gc.disable()  # its pauses would be the servers' latency

    async def asked() -> dict[str, Any]:
        if "due_ns" not in order:
            return {"answered": await closed_loop(order, wires)}
        loop = OpenLoop(order, wires)
        await loop.run()
        return {
            "statuses": loop.statuses, "latencies_ns": loop.latencies_ns, "late_ns": loop.late_ns,
        }  # fmt: skip

    print(json.dumps(uvloop.run(asked())))


if __name__ == "__main__":
    main()
