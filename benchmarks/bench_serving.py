"""`bench serving`: a model of 2 ms a batch behind our server, Triton's and LitServe's.

Largest batch 16, one lane or instance each, the same client over HTTP in a process of its own, a
closed loop of 1 and of 16 connections, in turns. Triton has two rows, for no one delay of its
batcher suits both: with 16 connections waiting gains, with 1 it only costs. Two rows are no
servers: the *client limit* is answered at once, the *batch limit* after 2 ms a batch, both unread
and always the same. Triton comes from the wheel nvidia-pytriton (--triton FOLDER: the site-packages
of another environment, which has it and numpy 1); a server that is not there is left out, and the
record says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import percentile
from spacetime.benchmarks.driving.interleave import turned
from spacetime.benchmarks.driving.server_process import Way, triton_wheel
from spacetime.benchmarks.serving import ways as serving_ways
from spacetime.benchmarks.serving.toy import BATCH_S

CONNECTIONS = (1, 16)
OTHERS = {"triton", "triton, no delay", "litserve"}
LIMITS = {"batch limit": BATCH_S, "client limit": 0.0}
FULL, QUICK = (5, 5.0), (1, 0.5)  # rounds, and seconds of each server in one


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    seed: int = 0,
    triton: str = "",
) -> dict[str, Any]:
    """Measures, prints and records. `seed` is recorded only: nothing is drawn."""
    rounds, seconds = QUICK if quick else FULL
    wheel = triton_wheel(triton)
    with ExitStack() as servers:
        ways = {"spacetime": servers.enter_context(serving_ways.ours())}
        for name, batch_s in LIMITS.items():
            ways[name] = servers.enter_context(serving_ways.limit(batch_s))
        missing = {}
        for name, there in others(wheel).items():
            try:
                ways[name] = servers.enter_context(there)
            except RuntimeError as reason:  # noqa: PERF203 - two servers, not a hot loop
                missing[name] = str(reason)
        rows = list(measured(ways, rounds=rounds, seconds=seconds))
    result = record.header("serving", seed=seed, quick=quick, chosen={})
    result |= {
        "rounds": rounds, "seconds": seconds, "batch_s": BATCH_S, "rows": rows,
        "missing": dict.fromkeys(OTHERS - {*ways, *missing}, "not installed") | missing,
    }  # fmt: skip
    record.publish(
        result,
        [shown(rows), *(f"{name}: {why}" for name, why in result["missing"].items())],
        out=out,
        as_json=as_json,
        plots="serving",
    )
    return result


def others(wheel: Path | None) -> dict[str, AbstractContextManager[Way]]:
    """Returns the servers to compare with that are installed, not started yet."""
    servers: dict[str, AbstractContextManager[Way]] = {}
    if wheel is not None:
        servers["triton"] = serving_ways.triton(wheel)
        servers["triton, no delay"] = serving_ways.triton(wheel, 0)
    if serving_ways.has_litserve():
        servers["litserve"] = serving_ways.litserve()
    return servers


def measured(ways: dict[str, Way], *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields a row for each server and number of connections: medians over the rounds."""
    for connections in CONNECTIONS:
        for way in ways.values():
            asked(way, connections, 0.3)
        by_server: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name in turned([*ways], turn):
                by_server[name].append(summary(asked(ways[name], connections, seconds), seconds))
        for name, summaries in by_server.items():
            middle = {key: median(part[key] for part in summaries) for key in summaries[0]}
            yield {"server": name, "connections": connections, **middle, "rounds": summaries}


def asked(way: Way, connections: int, seconds: float) -> dict[str, Any]:
    """Returns what one client process says of `seconds` of load on a server."""
    command = [
        sys.executable, "-m", "spacetime.benchmarks.serving.client",
        str(way.port), str(connections), str(seconds),
    ]  # fmt: skip
    done = subprocess.run(command, input=way.wire(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr.decode().splitlines()[-1:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def summary(said: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Returns answers a second, percentiles in ms, and the client's own CPU time of one in us."""
    latencies_us = said["took_us"]
    return {
        "rps": len(latencies_us) / seconds,
        "p50_ms": percentile(latencies_us, 50) / 1e3,
        "p99_ms": percentile(latencies_us, 99) / 1e3,
        "max_ms": latencies_us[-1] / 1e3,
        "client_us": said["cpu_s"] / len(latencies_us) * 1e6,
    }


def shown(rows: Sequence[dict[str, Any]]) -> Any:
    """Returns the table; the last column is the median request's time beyond its batch's own."""
    heads = [
        "server", "connections", "requests/s", "p50 ms", "p99 ms", "max ms",
        "client's CPU us a request", "added p50 ms",
    ]  # fmt: skip
    keys = ["server", "connections", "rps", "p50_ms", "p99_ms", "max_ms", "client_us"]
    lines = [[*(row[key] for key in keys), max(0.0, row["p50_ms"] - BATCH_S * 1e3)] for row in rows]
    return record.table("serving: 2 ms a batch, at most 16 a batch", heads, lines)
