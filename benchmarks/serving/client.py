"""A closed loop of HTTP requests over some connections, in a process of its own.

python -m spacetime.benchmarks.serving.client PORT CONNECTIONS SECONDS < REQUEST prints JSON: the
CPU seconds that asking took, and the sorted latencies in microseconds. The same client asks every
server, with the request's bytes made once: one thread, one epoll, one read and one write a request,
so that on a machine it shares with them it takes little from the servers.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200"
_PATIENCE_S = 30.0  # for one answer


class SocketConnection:
    """One request under way, and what has come of its answer."""

    __slots__ = ("expected", "received", "socket", "start")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.expected = 0  # bytes of the whole answer, once its head is here
        self.start = 0.0

    def ask(self, wire: bytes) -> None:
        """Sends a request."""
        self.received, self.expected = b"", 0
        self.start = time.perf_counter()
        self.socket.sendall(wire)

    def answered(self) -> bool:
        """Reads what is there; returns whether the answer is complete."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise RuntimeError("the server closed a connection")
        self.received += piece
        if not self.expected and (end := self.received.find(b"\r\n\r\n")) >= 0:
            self.expected = end + 4 + _length(self.received[:end])
        return 0 < self.expected <= len(self.received)


def main() -> None:
    """Asks as the arguments say, and prints what came of it."""
    port, connections, seconds = sys.argv[1:]
    wire = sys.stdin.buffer.read()
    opened = [SocketConnection(int(port)) for _ in range(int(connections))]
    begun = time.process_time()
    took_us = asked(opened, wire, float(seconds))
    print(json.dumps({"cpu_s": time.process_time() - begun, "took_us": sorted(took_us)}))


def asked(connections: list[SocketConnection], wire: bytes, seconds: float) -> list[float]:
    """Returns the latencies in microseconds of all answers. Raises RuntimeError without one."""
    took_us: list[float] = []
    by_number = {connection.socket.fileno(): connection for connection in connections}
    ready = select.epoll()
    for number in by_number:
        ready.register(number, select.EPOLLIN)
    end = time.perf_counter() + seconds
    for connection in connections:
        connection.ask(wire)
    under_way = len(connections)
    while under_way:
        events = ready.poll(_PATIENCE_S)
        if not events:
            raise RuntimeError(f"no answer within {_PATIENCE_S:.0f} s")
        for number, _ in events:
            connection = by_number[number]
            if not connection.answered():
                continue
            now = time.perf_counter()
            took_us.append((now - connection.start) * 1e6)
            if now < end:
                connection.ask(wire)
            else:
                connection.socket.close()  # which also ends the epoll's interest
                under_way -= 1
    return took_us


def _length(head: bytes) -> int:
    """Returns the length of an answer's body. Raises RuntimeError for anything but a success."""
    match = _LENGTH.search(head)
    if match is None or not head.startswith(_OK):
        raise RuntimeError(head.decode())
    return int(match[1])


if __name__ == "__main__":
    main()
