"""A closed loop of HTTP requests over so many connections, in a process of its own.

python -m spacetime.benchmarks.serving_client PORT PATH CONNECTIONS SECONDS < BODY
prints JSON: how many were answered, and the sorted latencies in microseconds. The same client asks
every server, with the request's bytes made once, so that it costs little and costs all the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


def main() -> None:
    """Asks, then prints."""
    port, path, connections, seconds = sys.argv[1:]
    body = sys.stdin.buffer.read()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    asked = _asked(int(port), head.encode() + body, int(connections), float(seconds))
    print(json.dumps(sorted(uvloop.run(asked))))


async def _asked(port: int, wire: bytes, connections: int, seconds: float) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + seconds
    await asyncio.gather(*(_one(port, wire, end, took) for _ in range(connections)))
    return took


async def _one(port: int, wire: bytes, end: float, took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < end:
        writer.write(wire)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_length(head))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        took.append((time.perf_counter() - start) * 1e6)
    writer.close()


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


if __name__ == "__main__":
    main()
