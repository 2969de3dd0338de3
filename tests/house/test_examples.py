"""The examples inside other servers: they answer as the models alone, and stop when asked to."""

from __future__ import annotations

import asyncio
import difflib
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from spacetime.benchmarks import bench_embed
from spacetime.benchmarks.embed.client import StreamConnection
from spacetime.benchmarks.embed.server import EXAMPLES, LIBRARIES, missing, post, serving, stop
from spacetime.benchmarks.embed.server import four_models as read_models
from spacetime.errors import InvalidInput, SpacetimeError

SERVERS = [*LIBRARIES]
MOST_LINES = 15  # that a user changes
# uvicorn ends by the signal that it was stopped with, after its orderly shutdown.
STOPPED = {"in_fastapi": -signal.SIGTERM, "in_litserve": 0, "in_ray_serve": 0}
REQUESTS = 32


@pytest.mark.parametrize("example", SERVERS)
def test_little_changes(example: str) -> None:
    before, after = (
        (EXAMPLES / example / f"{way}.py").read_text().splitlines() for way in ("before", "after")
    )
    changed = [line[0] for line in difflib.ndiff(before, after)]
    assert 0 < max(changed.count("+"), changed.count("-")) <= MOST_LINES


@pytest.mark.parametrize("way", ["before", "after"])
@pytest.mark.parametrize("example", SERVERS)
def test_every_tenant_answers_as_its_model_alone(example: str, way: str) -> None:
    if why := missing(example):
        pytest.skip(why)
    models = read_models()
    draw = torch.Generator().manual_seed(0)
    pictures = torch.rand(REQUESTS, models.PIXELS, generator=draw)
    with serving(example, way) as running, ThreadPoolExecutor(8) as clients:

        def ask(number: int) -> Any:
            question = {"tenant": number % models.TENANTS, "pixels": pictures[number].tolist()}
            return post(running.port, question)

        told = torch.tensor([*clients.map(ask, range(REQUESTS))])
        status, left = stop(running.process)
        assert left == []
        assert status == STOPPED[example], running.log.read_text()
    alone = [models.model(tenant) for tenant in range(models.TENANTS)]
    with torch.no_grad():
        for number, answer in enumerate(told):
            expected = alone[number % models.TENANTS](models.picture(pictures[number].tolist()))[0]
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(told[0], told[1], atol=1e-2)  # tenants are told apart


async def asked(app: Any, path: str) -> tuple[int, str]:
    """The status and the detail that an ASGI application answers a GET with."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": path, "headers": [],
             "query_string": b""}  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


def test_fastapi_tells_what_a_session_refuses_by_status(monkeypatch: pytest.MonkeyPatch) -> None:
    if why := missing("in_fastapi"):
        pytest.skip(why)
    monkeypatch.syspath_prepend(EXAMPLES)
    example = import_module("in_fastapi.after")
    x = read_models().EXAMPLE

    async def wrong() -> None:
        await example.tenants[0].infer(torch.zeros(1, 3))

    async def late() -> None:
        await example.tenants[0].infer(x, deadline_ms=1e-6)

    async def full() -> None:
        for _ in range(5000):
            example.tenants[0].submit(x)

    async def ask() -> dict[str, tuple[int, str]]:
        for route in (wrong, late, full):
            example.app.add_api_route(f"/{route.__name__}", route)
        async with example.app.router.lifespan_context(example.app):
            return {path: await asked(example.app, path) for path in ("/wrong", "/late", "/full")}

    told = asyncio.run(ask())
    assert {path: status for path, (status, _) in told.items()} == {
        "/wrong": 422, "/late": 504, "/full": 503,
    }  # fmt: skip
    assert "input" in told["/wrong"][1]


@pytest.mark.slow
def test_the_benchmark_measures_both_ways(tmp_path: Path) -> None:
    if why := missing("in_fastapi"):
        pytest.skip(why)
    result = bench_embed.run(
        servers=["fastapi"], concurrency=[1, 4], quick=True, out=tmp_path, as_json=True
    )
    assert json.loads((tmp_path / "embed.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / "embed.png").stat().st_size > 1000
    assert [row["concurrency"] for row in result["rows"]] == [1, 4]
    for row in result["rows"]:
        for way in ("before", "after"):
            assert row[way]["answered"] > 0
            assert row[way]["p50_ms"] <= row[way]["p99_ms"]


def test_a_window_is_told_as_it_was() -> None:
    windows = [
        {"elapsed_s": 2.0, "latencies_ns": [3_000_000, 1_000_000]},
        {"elapsed_s": 1.0, "latencies_ns": [2_000_000, 9_000_000, 4_000_000]},
    ]
    told = bench_embed.measured(windows)
    assert told == {
        "rps": 2.0, "rps_of_rounds": [1.0, 3.0], "answered": 5, "p50_ms": 3.0, "p99_ms": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\n[1,2]", b"Transfer-Encoding: chunked\r\n\r\n"
             b"2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n"],
)  # fmt: skip
def test_the_client_reads_answers_of_known_and_unknown_length(body: bytes) -> None:
    async def ask_twice() -> list[bytes]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                await reader.readuntil(b"{}")
                writer.write(b"HTTP/1.1 200 OK\r\n" + body)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            connection = await StreamConnection.open(server.sockets[0].getsockname()[1])
            told = [await connection.post(b"{}") for _ in range(2)]
            connection.close()
            return told

    assert asyncio.run(ask_twice()) == [b"[1,2]"] * 2


def test_losses_are_named() -> None:
    before = {"rps": 100.0, "p50_ms": 1.0, "p99_ms": 2.0}
    after = {"rps": 96.0, "p50_ms": 1.02, "p99_ms": 2.1}
    assert bench_embed.lost_by(before, after) == ["rate", "p99"]
    assert bench_embed.lost_by(before, before) == []


def test_a_server_that_is_gone_is_one_line() -> None:
    with bench_embed.client_process() as client, pytest.raises(SpacetimeError, match=r"port 1: "):
        bench_embed.window(client, 1, 1, 0.1, [{}])


def test_an_unknown_server_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"servers.*fastapi"):
        bench_embed.run(servers=["django"], quick=True)
