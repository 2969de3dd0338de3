"""`bench embed`: four models inside FastAPI, LitServe and Ray Serve, before and after spacetime.

What runs are the examples in `examples/in_*`: `before.py` with the server's own batching (FastAPI
has none: the batcher its users write), `after.py` with tenants of one session. Both are up at the
same time and one client process asks them in turn, window by window, in a closed loop.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import percentile
from spacetime.benchmarks.embed.server import (
    LIBRARIES,
    NAMES,
    RunningExample,
    four_models,
    missing,
    post,
    serving,
)
from spacetime.errors import InvalidInput, SpacetimeError

WAYS = ("before", "after")
CONCURRENCY = (1, 16)
TOLERANCE = 1e-4  # of scores around 1
LOST = 1.03  # more than 3 % behind
Question = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSize:
    """How long is measured: seconds to warm up, seconds of a window of load, and windows."""

    warm_s: float
    window_s: float
    rounds: int


FULL = EmbedSize(warm_s=2.0, window_s=4.0, rounds=5)
QUICK = EmbedSize(warm_s=0.2, window_s=0.3, rounds=2)


def run(
    *,
    servers: Sequence[str] | None = None,
    concurrency: Sequence[int] | None = None,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures every server that is installed, prints and records it.

    servers: of fastapi, litserve, ray_serve; None is all that are here. seed: of the pictures.
    """
    size = QUICK if quick else FULL
    chosen = _chosen(servers)
    questions = _questions(seed)
    rows: list[dict[str, Any]] = []
    skipped = [why for example in LIBRARIES if (why := missing(example)) is not None]
    with client_process() as client:
        for example in chosen:
            rows += _rows(example, client, concurrency or CONCURRENCY, size, questions)
    result = record.header(
        "embed", seed=seed, quick=quick, chosen={"servers": servers, "concurrency": concurrency}
    )
    result |= {"size": asdict(size), "rows": rows, "skipped": skipped}
    record.publish(result, [shown(rows, skipped)], out=out, as_json=as_json, plots="embed")
    return result


def shown(rows: Sequence[Mapping[str, Any]], skipped: Sequence[str]) -> Any:
    """Returns the table: a line for each server and concurrency. A gain below 1 is a loss."""
    heads = ["server", "requests at once", "before, requests/s", "after, requests/s"]
    heads += ["after / before"]
    heads += [f"{p} ms\n{way}" for p in ("p50", "p99") for way in ("before", "after")] + ["lost"]
    lines = []
    for row in rows:
        before, after = row["before"], row["after"]
        pairs = [way[key] for key in ("p50_ms", "p99_ms") for way in (before, after)]
        gain = after["rps"] / before["rps"]
        lost = ", ".join(lost_by(before, after))
        rates = [before["rps"], after["rps"]]
        lines.append([row["server"], row["concurrency"], *rates, gain, *pairs, lost])
    table = record.table("embed: four models behind one server, closed loop", heads, lines)
    table.caption = "\n".join(f"skipped {line}" for line in skipped) or None
    return table


def lost_by(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """Returns in which of throughput, p50 and p99 `after` is more than 3 % behind."""
    lost = ["rate"] * (after["rps"] * LOST < before["rps"])
    return lost + [key[:3] for key in ("p50_ms", "p99_ms") if after[key] > before[key] * LOST]


def measured(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one way's median rate over its windows, and percentiles of all its latencies."""
    rates_rps = [len(window["latencies_ns"]) / window["elapsed_s"] for window in windows]
    latencies_ns = sorted(ns for window in windows for ns in window["latencies_ns"])
    return {
        "rps": median(rates_rps),
        "rps_of_rounds": rates_rps,
        "answered": len(latencies_ns),
        "p50_ms": percentile(latencies_ns, 50) / 1e6,
        "p99_ms": percentile(latencies_ns, 99) / 1e6,
    }


def _chosen(servers: Sequence[str] | None) -> list[str]:
    if not servers:
        return [example for example in LIBRARIES if missing(example) is None]
    record.known("servers", servers, [name.removeprefix("in_") for name in LIBRARIES])
    for server in servers:
        if (why := missing(f"in_{server}")) is not None:
            raise InvalidInput("-", "servers", "installed ones", why)
    return [f"in_{server}" for server in servers]


def _questions(seed: int) -> list[Question]:
    """Returns one question for each tenant."""
    models = four_models()
    draw = torch.Generator().manual_seed(seed)
    pixels = [torch.rand(models.PIXELS, generator=draw).tolist() for _ in range(models.TENANTS)]
    return [{"tenant": tenant, "pixels": picture} for tenant, picture in enumerate(pixels)]


def _rows(
    example: str,
    client: subprocess.Popen[str],
    concurrency: Sequence[int],
    size: EmbedSize,
    questions: Sequence[Question],
) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        up = {way: stack.enter_context(serving(example, way)) for way in WAYS}
        for way in WAYS:
            _check(up[way], questions)
        for count in concurrency:
            windows = _interleaved(up, client, count, size, questions)
            ways = {way: measured(windows[way]) for way in WAYS}
            yield {"server": NAMES[example], "concurrency": count, **ways}


def _check(running: RunningExample, questions: Sequence[Question]) -> None:
    """Raises unless every tenant's answer is that of its model alone."""
    models = four_models()
    for question in questions:
        with torch.no_grad():
            alone = models.model(question["tenant"])(models.picture(question["pixels"]))[0]
        told = torch.tensor(post(running.port, question))
        torch.testing.assert_close(told, alone, rtol=TOLERANCE, atol=TOLERANCE)


def _interleaved(
    up: Mapping[str, RunningExample],
    client: subprocess.Popen[str],
    count: int,
    size: EmbedSize,
    questions: Sequence[Question],
) -> dict[str, list[Any]]:
    """Measures windows of each way in turn; who begins changes, so that each follows the other."""
    for way in WAYS:
        window(client, up[way].port, count, size.warm_s, questions)
    windows: dict[str, list[Any]] = {way: [] for way in WAYS}
    for turn in range(size.rounds):
        for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
            told = window(client, up[way].port, count, size.window_s, questions)
            windows[way].append(told)
    return windows


def window(
    client: subprocess.Popen[str], port: int, count: int, seconds: float, bodies: Sequence[Question]
) -> Any:
    """Returns what the client process saw in `seconds` of load over `count` connections."""
    asked = {"port": port, "concurrency": count, "seconds": seconds, "bodies": bodies}
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(asked) + "\n")
    client.stdin.flush()
    told = json.loads(client.stdout.readline() or '{"error": "the client process ended"}')
    if "error" in told:
        raise SpacetimeError(f"asking the server on port {port}: {told['error']}")
    return told


@contextmanager
def client_process() -> Iterator[subprocess.Popen[str]]:
    """Yields the client process, which asks every server."""
    command = [sys.executable, "-m", "spacetime.benchmarks.embed.client"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as client:
        yield client
