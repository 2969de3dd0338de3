"""`bench loadgen`: MLPerf's LoadGen asks a session in its four scenarios; is each run VALID?

SingleStream, MultiStream (8 samples a query), Server (Poisson) and Offline, performance mode, on a
small model; beside it a bare pool of threads with the same model as TorchScript. What differs in
SingleStream is what the library adds to a request. Needs mlcommons-loadgen.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spacetime as st
from spacetime.benchmarks import record
from spacetime.benchmarks.driving.calls import timed_ns
from spacetime.benchmarks.driving.servers import PoolServer, scripted
from spacetime.errors import UnsupportedError
from spacetime.units import SECOND

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
SAMPLES = 64  # of the data set
SHAPE = (1, 64)
TARGET_QPS, TARGET_MS = 200.0, 50.0  # Server: what is asked, and the objective
SERVER_QUERIES = 800  # at least; LoadGen's early stopping asks for some hundreds
MOST_OFFLINE_S = 1.0  # one query holds everything, and its answers are futures
MOST_UNDER_WAY = 1 << 14  # of that query; a session takes 65,536
TRIED = 2000  # requests that tell how many LoadGen has to prepare
FIELDS = {
    "valid": r"Result is\s*: (\w+)",
    "p50_us": r"50.00 percentile latency \(ns\)\s*: (\d+)",
    "p99_us": r"99.00 percentile latency \(ns\)\s*: (\d+)",
    "samples_rps": r"(?:Samples per second|Completed samples per second\s*)\s*: ([\d.]+)",
}
Submit = Callable[[Tensor], Future[Tensor]]
Row = dict[str, Any]


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Runs each scenario for 10 s (quick: 0.5 s) on both. `seed` is recorded: LoadGen has its own.

    Raises UnsupportedError where mlcommons-loadgen is not installed.
    """
    loadgen = available()
    seconds = 0.5 if quick else 10.0
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).eval()
    rows = []
    with st.Session("cpu") as session:
        tenant = session.add(model, example_inputs=(torch.randn(SHAPE),), queue_limit=1 << 20)
        rows += [tested(loadgen, "session", tenant.submit, s, seconds) for s in SCENARIOS]
    pool = PoolServer([scripted(model, torch.randn(SHAPE))])
    rows += [
        tested(loadgen, "thread pool", lambda x: pool.submit(0, x), s, seconds) for s in SCENARIOS
    ]
    pool.close()
    result = record.header("loadgen", seed=seed, quick=quick, chosen={})
    ours, bare = (rows[place]["p50_us"] for place in (0, len(SCENARIOS)))
    result |= {"seconds": seconds, "rows": rows, "added_p50_us": ours - bare}
    record.publish(result, shown(result), out=out, as_json=as_json, plots=None)
    return result


def available() -> Any:
    """Returns LoadGen's module. Raises UnsupportedError where it is not installed."""
    try:
        return import_module("mlperf_loadgen")
    except ModuleNotFoundError:
        raise UnsupportedError(
            "bench loadgen: LoadGen is not installed: pip install mlcommons-loadgen"
        ) from None


def tested(loadgen: Any, way: str, submit: Submit, scenario: str, seconds: float) -> Row:
    """Runs LoadGen once; returns the row that its own summary tells."""
    data = [torch.randn(SHAPE) for _ in range(SAMPLES)]
    room = threading.BoundedSemaphore(MOST_UNDER_WAY)

    def issue(queries: Sequence[Any]) -> None:
        for query in queries:
            room.acquire()
            answer = submit(data[query.index])
            answer.add_done_callback(partial(complete, query.id))

    def complete(query: int, future: Future[Tensor]) -> None:
        room.release()
        answer = future.result()
        size = answer.numel() * answer.element_size()
        response = loadgen.QuerySampleResponse(query, answer.data_ptr(), size)
        loadgen.QuerySamplesComplete([response])

    sut = loadgen.ConstructSUT(issue, lambda: None)
    qsl = loadgen.ConstructQSL(SAMPLES, SAMPLES, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        logs = loadgen.LogSettings()
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        logs.enable_trace = False
        chosen = settings(loadgen, scenario, seconds, expected(submit, data[0]))
        loadgen.StartTestWithLogSettings(sut, qsl, chosen, logs)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    loadgen.DestroyQSL(qsl)
    loadgen.DestroySUT(sut)
    return {"way": way, "scenario": scenario} | read_summary(summary)


def expected(submit: Submit, x: Tensor) -> tuple[int, float]:
    """Returns a latency in ns and answers a second, both too good: LoadGen prepares by them."""
    took_ns = timed_ns(lambda: submit(x).result(), 50)
    begun = time.perf_counter_ns()
    wait([submit(x) for _ in range(TRIED)])
    rate_rps = TRIED / (time.perf_counter_ns() - begun) * SECOND
    return max(1, min(took_ns) // 4), 2 * rate_rps


def settings(loadgen: Any, scenario: str, seconds: float, best: tuple[int, float]) -> Any:
    """Returns LoadGen's settings: `seconds` at least, and as many queries as that takes.

    best: what `expected` returned.
    """
    latency_ns, rate_rps = best
    if scenario == "Offline":
        seconds = min(seconds, MOST_OFFLINE_S)
    chosen = loadgen.TestSettings()
    chosen.scenario = getattr(loadgen.TestScenario, scenario)
    chosen.mode = loadgen.TestMode.PerformanceOnly
    chosen.min_duration_ms = round(1000 * seconds)
    chosen.min_query_count = SERVER_QUERIES
    chosen.single_stream_expected_latency_ns = latency_ns
    chosen.multi_stream_expected_latency_ns = latency_ns
    chosen.server_target_qps = TARGET_QPS
    chosen.server_target_latency_ns = round(TARGET_MS * 1e6)
    chosen.offline_expected_qps = rate_rps
    chosen.multi_stream_samples_per_query = 8
    return chosen


def read_summary(summary: str) -> Row:
    """Returns what LoadGen's summary says: VALID or not, percentiles in us, samples a second.

    A figure that is not there is None.
    """
    row: Row = {}
    for field, pattern in FIELDS.items():
        match = re.search(pattern, summary)
        if field == "valid":
            row[field] = match is not None and match[1] == "VALID"
        else:
            scale = 1e-3 if field.endswith("us") else 1.0
            row[field] = float(match[1]) * scale if match else None
    return row


def shown(result: Row) -> Iterator[Any]:
    """Yields the table, and what the library adds to a request."""
    keys = ("way", "scenario", "valid", "p50_us", "p99_us", "samples_rps")
    yield record.table(
        f"MLPerf LoadGen, {result['seconds']:g} s a scenario",
        ("way", "scenario", "VALID", "p50 us", "p99 us", "samples/s"),
        [[row[key] for key in keys] for row in result["rows"]],
    )
    yield f"SingleStream: {result['added_p50_us']:.0f} us more than a bare pool of threads (p50)"
