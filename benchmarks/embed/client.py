"""The client process of `bench embed`: closed loops over HTTP, told what to do on its own input.

python -m spacetime.benchmarks.embed.client: a line in is a window of load, `{"port",
"concurrency", "seconds", "bodies"}`; the line out is `{"elapsed_s", "latencies_ns"}` or
`{"error"}`. It imports no torch, so it costs the server it asks little; one process asks them all.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class StreamConnection:
    """One connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> StreamConnection:
        """Returns a connection to this machine's `port`."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, body: bytes) -> bytes:
        """Returns the answer to one request. Raises RuntimeError unless it is a success."""
        self._writer.write(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {head.splitlines()[0].decode()}")
        if length is None:
            return b"".join([chunk async for chunk in self._chunks()])
        return await self._reader.readexactly(int(length[1]))

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yields an answer whose length is not said in advance, as Ray Serve sends it."""
        while size := int((await self._reader.readline()).split(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    def close(self) -> None:
        """Closes the connection."""
        self._writer.close()


async def closed_loop(
    port: int, concurrency: int, seconds: float, bodies: Sequence[bytes]
) -> dict[str, object]:
    """Asks the `bodies` in turn over `concurrency` connections, each as soon as it is answered.

    Returns the seconds it took and the latencies in ns.
    """
    connections = [await StreamConnection.open(port) for _ in range(concurrency)]
    latencies: list[int] = []
    start = time.perf_counter_ns()
    end = start + round(seconds * 1e9)

    async def ask_on(connection: StreamConnection, first: int) -> None:
        for number in itertools.count(first):
            before = time.perf_counter_ns()
            if before >= end:
                return
            await connection.post(bodies[number % len(bodies)])
            latencies.append(time.perf_counter_ns() - before)

    await asyncio.gather(*(ask_on(connection, n) for n, connection in enumerate(connections)))
    elapsed_s = (time.perf_counter_ns() - start) / 1e9
    for connection in connections:
        connection.close()
    return {"elapsed_s": elapsed_s, "latencies_ns": latencies}


def main() -> None:
    """Answers a line with a line until its input ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        asked["bodies"] = [json.dumps(body).encode() for body in asked["bodies"]]
        try:
            answer = asyncio.run(closed_loop(**asked))
        except (OSError, EOFError, RuntimeError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
