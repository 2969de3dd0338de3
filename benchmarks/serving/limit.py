"""The least a server can do: what bounds every server on this machine, with this client.

python -m spacetime.benchmarks.serving.limit SECONDS ANSWER  prints its port once it listens. One
thread reads requests and writes the same ANSWER (hexadecimal) to each; a batch takes SECONDS, 0 is
no batch at all. It understands nothing, and knows what no server can: when no request is to come.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from spacetime.benchmarks.serving.toy import LARGEST_BATCH


class Least:
    """Connections, and those that wait for the next batch."""

    def __init__(self, batch_s: float, answer: bytes) -> None:
        self._batch_s = batch_s
        self._wire = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ready = select.epoll()
        self._ready.register(self._listener.fileno(), select.EPOLLIN)
        self._open: dict[int, socket.socket] = {}
        self._waiting: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The port that the server is bound to."""
        port: int = self._listener.getsockname()[1]
        return port

    def serve(self) -> None:
        """Serves until the process is ended."""
        while True:
            for number, _ in self._ready.poll():
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._read(number)
            most = min(len(self._open), LARGEST_BATCH) if self._batch_s else 1
            if len(self._waiting) >= max(most, 1):
                self._answer()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open[connection.fileno()] = connection
        self._ready.register(connection.fileno(), select.EPOLLIN)

    def _read(self, number: int) -> None:
        connection = self._open[number]
        if connection.recv(1 << 16):  # a request is small: it comes whole
            self._waiting.append(connection)
            return
        self._ready.unregister(number)
        self._open.pop(number).close()

    def _answer(self) -> None:
        batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
        if self._batch_s:
            time.sleep(self._batch_s)
        for connection in batch:
            connection.sendall(self._wire)


def main() -> None:
    """Serves until it is terminated."""
    least = Least(float(sys.argv[1]), bytes.fromhex(sys.argv[2]))
    print(least.port, flush=True)
    least.serve()


if __name__ == "__main__":
    main()
