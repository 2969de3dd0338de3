"""`bench dispatch`: what it costs to get a request to a lane and its end back to the caller.

Launches do nothing, so nothing but dispatching is measured: how long one request takes when it is
alone, how many get through in a second, and whether memory grows with them.

What was imported before is frozen for Python's garbage collector, as a server does: with torch
loaded, its passes would cost every way 12 us a future, which measures torch's modules.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.dispatch import capi, litserve
from spacetime.benchmarks.dispatch.ways import (
    TENANTS,
    WAVE,
    AsyncBatcher,
    Dispatch,
    pipelined,
    spinning,
)
from spacetime.benchmarks.driving.calls import percentile, timed_ns
from spacetime.benchmarks.serving.ways import has_litserve

CLIENTS = 8  # of litserve: connections at once
GOALS = {
    ("native submit to known end", "p50_us"): 10.0,
    ("the same, a Python thread spinning", "p99_us"): 1000.0,
    ("future, native lane", "p50_us"): 60.0,
    ("futures from one thread, native lane", "rps"): 60_000.0,
    ("bulk, 8 tenants", "rps"): 300_000.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSize:
    """How much is measured: numbers of requests."""

    latencies: int  # each awaited before the next, for percentiles
    requests: int  # at once from one thread, for a rate
    bulk: int  # at once from native code, for a rate
    memory: int  # whose memory is looked at


FULL = DispatchSize(latencies=20_000, requests=200_000, bulk=3_000_000, memory=10_000_000)
QUICK = DispatchSize(latencies=400, requests=2_000, bulk=20_000, memory=200_000)


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Measures everything, prints and records it. `seed` is recorded only: nothing is drawn."""
    size = QUICK if quick else FULL
    gc.freeze()
    try:
        rows = [*native_rows(size), *python_rows(size), *rival_rows(size), memory_row(size)]
    finally:
        gc.unfreeze()
    result = record.header("dispatch", seed=seed, quick=quick, chosen={})
    result |= {"size": asdict(size), "rows": rows, "litserve": has_litserve()}
    result["cc"] = capi.available()  # without it the C API has no row
    record.publish(result, [shown(rows)], out=out, as_json=as_json, plots="dispatch")
    return result


def shown(rows: Sequence[dict[str, Any]]) -> Any:
    """Returns the table: latencies, rates, and the goals beside what was measured."""
    heads = ["way", "p50 us", "p99 us", "max us", "requests/s", "CPU us a request",
             "memory, bytes a request", "goal"]  # fmt: skip
    keys = ["p50_us", "p99_us", "max_us", "rps", "cpu_us", "bytes_per_request"]
    lines = [[row["way"], *(row.get(key) for key in keys), goal(row)] for row in rows]
    return record.table("dispatch: launches that do nothing", heads, lines)


def goal(row: dict[str, Any]) -> str | None:
    """Returns the row's goal and whether it was met, in words; None where it has no goal."""
    for (way, key), bound in GOALS.items():
        if row["way"] == way:
            sign = ">=" if key == "rps" else "<="
            met = row[key] >= bound if key == "rps" else row[key] <= bound
            return f"{key} {sign} {bound:,.0f}: {'met' if met else 'NOT met'}"
    return None


def latency_row(way: str, sorted_ns: Sequence[int]) -> dict[str, Any]:
    """Returns a row of percentiles, in us, of latencies that are sorted."""
    return {
        "way": way,
        "p50_us": percentile(sorted_ns, 50) / 1e3,
        "p99_us": percentile(sorted_ns, 99) / 1e3,
        "max_us": sorted_ns[-1] / 1e3,
    }


def rate_row(way: str, requests: int, work: Callable[[], object]) -> dict[str, Any]:
    """Returns a row of requests a second, and of this process's CPU time a request, in us.

    The CPU time drifts less than the rate where other programs run.
    """
    before, used = time.perf_counter(), time.process_time()
    work()
    rps = requests / (time.perf_counter() - before)
    return {"way": way, "rps": rps, "cpu_us": (time.process_time() - used) / requests * 1e6}


def native_rows(size: DispatchSize) -> Iterator[dict[str, Any]]:
    """Yields rows of requests with no Python between submitting and the end."""
    dispatch = Dispatch(native=True)
    executor, (tenant, *_) = dispatch.executor, dispatch.tenants
    executor.bench_roundtrip(tenant, 100)
    yield latency_row(
        "native submit to known end", executor.bench_roundtrip(tenant, size.latencies)
    )
    with spinning():
        yield latency_row(
            "the same, a Python thread spinning", executor.bench_roundtrip(tenant, size.latencies)
        )
    yield rate_row(
        "bulk, 8 tenants",
        size.bulk,
        lambda: executor.submit_bulk(dispatch.tenants, count=size.bulk).wait(),
    )
    dispatch.close()
    if capi.available():
        yield latency_row("C API submit to wait", capi.roundtrips_ns(size.latencies))


def python_rows(size: DispatchSize) -> Iterator[dict[str, Any]]:
    """Yields rows of futures asked by one Python thread, over a native and a Python lane."""
    for lane, native in [("native", True), ("Python", False)]:
        dispatch = Dispatch(native=native)
        yield alone_row(f"future, {lane} lane", size, dispatch.submit)
        yield pipelined_row(f"futures from one thread, {lane} lane", size, dispatch.submit)
        dispatch.close()


def alone_row(
    way: str, size: DispatchSize, submit: Callable[[int], Future[None]]
) -> dict[str, Any]:
    """Returns a row of the latencies of one request after the other, each awaited."""
    return latency_row(way, sorted(timed_ns(lambda: submit(0).result(), size.latencies)))


def pipelined_row(
    way: str, size: DispatchSize, submit: Callable[[int], Future[None]]
) -> dict[str, Any]:
    """Returns a row of the rate of requests that are not awaited one by one."""
    return rate_row(way, size.requests, lambda: pipelined(submit, size.requests))


def rival_rows(size: DispatchSize) -> Iterator[dict[str, Any]]:
    """Yields rows of what a user has today, doing nothing as well."""
    with ThreadPoolExecutor(1) as pool:

        def submit(_: int) -> Future[None]:
            return pool.submit(_nothing)

        yield alone_row("ThreadPoolExecutor", size, submit)
        yield pipelined_row("ThreadPoolExecutor, pipelined", size, submit)
    yield from asyncio.run(_asyncio_rows(size))
    if not has_litserve():
        yield {"way": "litserve: skipped, not installed"}
        return
    with litserve.serving() as port:
        calls = size.latencies // 20
        took_ns = sorted(timed_ns(litserve.Client(port).call, calls))
        yield latency_row("litserve, over HTTP", took_ns)
        yield rate_row(
            f"litserve, {CLIENTS} connections", calls, lambda: _clients(port, calls // CLIENTS)
        )


async def _asyncio_rows(size: DispatchSize) -> list[dict[str, Any]]:
    batcher = AsyncBatcher()
    took = []
    for _ in range(size.latencies):
        before = time.perf_counter_ns()
        await batcher.submit(0)
        took.append(time.perf_counter_ns() - before)
    before_s, used = time.perf_counter(), time.process_time()
    for _ in range(0, size.requests, WAVE):
        await asyncio.gather(*(batcher.submit(i % TENANTS) for i in range(WAVE)))
    rps = size.requests / (time.perf_counter() - before_s)
    cpu_us = (time.process_time() - used) / size.requests * 1e6
    batcher.close()
    gathered = {"way": "asyncio, gathered", "rps": rps, "cpu_us": cpu_us}
    return [latency_row("asyncio batcher", sorted(took)), gathered]


def _clients(port: int, calls_each: int) -> None:
    def work() -> None:
        client = litserve.Client(port)
        for _ in range(calls_each):
            client.call()

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def memory_row(size: DispatchSize) -> dict[str, Any]:
    """Returns a row of the resident memory's median growth over ten steps, after one to warm up.

    What requests leave behind grows in every step; the process's allocator grows once in a while.
    """
    dispatch = Dispatch(native=True)
    step = size.memory // 10
    resident = []
    for _ in range(11):
        dispatch.executor.submit_bulk(dispatch.tenants, count=step).wait()
        resident.append(_resident_bytes())
    dispatch.close()
    growth = median(after - before for before, after in pairwise(resident))
    return {
        "way": f"memory over {size.memory:,} requests",
        "bytes_per_request": growth / step,
        "resident_mib": [round(value / 2**20, 2) for value in resident],
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _nothing() -> None:
    """Does what every launch here does: nothing."""
