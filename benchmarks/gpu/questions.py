"""The questions of `probes`, by name: what this driver and this device really do.

Each takes the driver, asks, and returns facts that fit JSON. They run in processes of their own.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from spacetime.benchmarks.gpu.driver import Cuda, Green, Resource
from spacetime.benchmarks.gpu.names import QUESTIONS
from spacetime.benchmarks.gpu.rig import clocks
from spacetime.kernels import cuda as device_code

Facts = dict[str, Any]
ENTRIES = Path(__file__).resolve().parents[2] / "csrc" / "cuda" / "entries.h"
BLOCKS_AN_SM = 4  # of the kernel that notes where it runs: no SM is left out
UNIT = 8  # SMs: the smallest group of Hopper, and a whole number of groups elsewhere
_TORCH: Any = torch  # what is typed differs from version to version


class Ask(Protocol):
    """Answers one question of an opened device."""

    def __call__(self, cuda: Cuda, /, *, quick: bool) -> Facts: ...


def opened() -> Cuda:
    """Opens the device. Raises OSError without a driver, RuntimeError where it finds no device."""
    return Cuda()


def versions(cuda: Cuda, /, *, quick: bool) -> Facts:
    """Versions, clocks, and which of the driver's calls we use it has, in the version we use."""
    names = ("torch", "triton", "cupy-cuda13x", "numpy", "nvidia-ml-py")
    text = ENTRIES.read_text(encoding="utf-8") if ENTRIES.exists() else ""
    entries = re.findall(r"X\((cu\w+), (\d+),", text)
    return {
        "driver": cuda.number("cuDriverGetVersion"),
        "packages": {name: _version(name) for name in names},
        "capability": list(torch.cuda.get_device_capability()),
        "device": torch.cuda.get_device_name(),
        "cudnn": _TORCH.backends.cudnn.version(),
        "clocks": clocks(),
        "missing entries": {
            name: why for name, least in entries if (why := cuda.has(name, int(least)))
        },
        "entries": len(entries),
    }


def splits(cuda: Cuda, /, *, quick: bool) -> Facts:
    """For each least size and flag: how many groups of how many SMs, and what remains."""
    whole = cuda.whole()
    table: dict[str, list[list[int]]] = {}
    for flags in (0, 1, 2):
        sizes = range(1, whole.sms + 1, 8 if quick else 1)
        table[str(flags)] = [[least, *_split(cuda, least, flags)] for least in sizes]
    facts = {"sms": whole.sms, "least": whole.least, "aligned": whole.aligned}
    return {**facts, "columns": ["least", "groups", "sms", "rest"], "flags": table}


def sm_ids(cuda: Cuda, /, *, quick: bool) -> Facts:
    """The SMs each group and the remainder really run on, and whether they are disjoint."""
    answer: Facts = {}
    for flags in (0, 1):
        groups, rest = cuda.split(UNIT, flags=flags)
        parts = [*groups, *[rest] * (rest.sms > 0)]
        seen = [_seen_on(cuda, [part]) for part in parts]
        every = [sm for part in seen for sm in part]
        answer[str(flags)] = {
            "granted": [part.sms for part in parts],
            "ids": seen,
            "disjoint": len(every) == len(set(every)),
            "covered": len(set(every)),
        }
    return answer


def contexts(cuda: Cuda, /, *, quick: bool) -> Facts:
    """How many green contexts there can be, what one costs in time and memory."""
    groups, _ = cuda.split(UNIT)
    most = 64 if quick else 256
    held: list[Green] = []
    created, error, before = [], "", cuda.memory()[0]
    try:
        for number in range(most):
            begin = time.perf_counter_ns()
            held.append(Green(cuda, groups[: 1 + number % len(groups)]))
            created.append((time.perf_counter_ns() - begin) / 1e3)
    except RuntimeError as refusal:
        error = str(refusal)
    used = before - cuda.memory()[0]
    begin = time.perf_counter_ns()
    for green in held:
        green.close()
    destroyed_us = (time.perf_counter_ns() - begin) / 1e3 / max(1, len(held))
    return {
        "held": len(held),
        "asked": most,
        "error": error,
        "create_us": _spread(created),
        "destroy_us": destroyed_us,
        "bytes_each": used / max(1, len(held)),
        "bytes_left_behind": before - cuda.memory()[0],
    }


def graph_sms(cuda: Cuda, /, *, quick: bool) -> Facts:
    """A graph captured on one partition and launched on another's stream: whose SMs it uses."""
    groups, _ = cuda.split(UNIT)
    with _green(cuda, groups[:2]) as home, _green(cuda, groups[2:4]) as other:
        where = Where(cuda)
        streams = [_TORCH.cuda.ExternalStream(green.handle) for green in (home, other)]
        graph = torch.cuda.CUDAGraph()
        where.launch(home.handle)  # compiled and loaded before the capture
        on_home = where.seen()
        where.launch(other.handle)
        on_other = where.seen()
        with torch.cuda.graph(graph, stream=streams[0], capture_error_mode="thread_local"):
            where.launch(home.handle)
        with torch.cuda.stream(streams[1]):
            graph.replay()
        launched = where.seen()
        return {
            "captured on": on_home,
            "launched on": on_other,
            "ran on": launched,
            "graph keeps its capture's SMs": bool(launched) and set(launched) <= set(on_home),
        }


def cudnn_nodes(cuda: Cuda, /, *, quick: bool) -> Facts:
    """A convolution captured on a partition: which of its kernels lie in another context?

    cuDNN may fork onto streams of its own, which belong to the primary context: all SMs.
    """
    answer: Facts = {}
    groups, _ = cuda.split(UNIT)
    with _green(cuda, groups[:2]) as green, torch.no_grad():
        home = cuda.context_of(green)
        stream = _TORCH.cuda.ExternalStream(green.handle)
        for name, channels, dtype in (("fp32", 64, torch.float32), ("bf16", 512, torch.bfloat16)):
            x = torch.randn(8, channels, 28, 28, device="cuda", dtype=dtype)
            layer = torch.nn.Conv2d(channels, channels, 3, padding=1, device="cuda", dtype=dtype)
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                layer(x)
            torch.cuda.synchronize()
            graph = _TORCH.cuda.CUDAGraph(keep_graph=True)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                layer(x)
            found = cuda.kernel_contexts(graph.raw_cuda_graph())
            answer[name] = {"kernels": len(found), "elsewhere": sum(c != home for c in found)}
    return answer


def queues(cuda: Cuda, /, *, quick: bool) -> Facts:
    """One block that spins 1 ms on each of N streams of two partitions: do they run at once?"""
    groups, _ = cuda.split(UNIT)
    where = Where(cuda)
    rows = []
    for count in (2, 4, 8, 16, 32):
        greens = [Green(cuda, groups[:4] if i % 2 else groups[4:8]) for i in range(count)]
        for ns in (1000, 1_000_000):  # the first to load and to warm up
            torch.cuda.synchronize()
            begin = time.perf_counter_ns()
            for green in greens:
                where.launch(green.handle, ns=ns, blocks=1)
            torch.cuda.synchronize()
        rows.append([count, (time.perf_counter_ns() - begin) / 1e6])
        for green in greens:
            green.close()
    return {"columns": ["streams", "ms for 1 ms each"], "rows": rows}


def clusters(cuda: Cuda, /, *, quick: bool) -> Facts:
    """Whether cuBLAS's bf16 product runs in partitions of each size, by groups of 8 and of 2."""
    answer: Facts = {}
    a = torch.randn(2048, 2048, device="cuda", dtype=torch.bfloat16)
    whole = a @ a
    for unit, flags in ((UNIT, 0), (2, 1)):
        groups, _ = cuda.split(unit, flags=flags)
        for count in (1, 2, 4):
            with _green(cuda, groups[:count]) as green:
                torch.cuda.synchronize()
                with torch.cuda.stream(_TORCH.cuda.ExternalStream(green.handle)):
                    result = a @ a
                torch.cuda.synchronize()
                same = bool(torch.allclose(result.float(), whole.float(), rtol=0.05, atol=1.0))
                answer[f"{green.sms} SMs by {unit}"] = "right" if same else "WRONG"
    return answer


def launches(cuda: Cuda, /, *, quick: bool) -> Facts:
    """Stream priorities, and the host's microseconds for an eager launch and a graph replay."""
    x = torch.zeros(1024, device="cuda")
    stream = _TORCH.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        x.add_(1)
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            x.add_(1)
        eager = _host_us(lambda: x.add_(1), 200 if quick else 2000)
        replay = _host_us(graph.replay, 200 if quick else 2000)
    least, greatest = cuda.priorities()
    return {
        "priorities": [least, greatest],
        "eager_us": _spread(eager),
        "replay_us": _spread(replay),
    }


def gpm(cuda: Cuda, /, *, quick: bool) -> Facts:
    """Whether NVML samples bandwidth and SM use of this device without a profiler."""
    import pynvml as nvml  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    support = nvml.nvmlGpmQueryDeviceSupport(handle)
    return {"supported": bool(support.isSupportedDevice)}


def _split(cuda: Cuda, least: int, flags: int) -> list[int]:
    try:
        groups, rest = cuda.split(least, flags=flags)
    except RuntimeError:  # that there is no such split is an answer too
        return [0, 0, 0]
    return [len(groups), groups[0].sms if groups else 0, rest.sms]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Where:
    """A kernel of many blocks that each spin for a while and note the SM they ran on."""

    def __init__(self, cuda: Cuda) -> None:
        self._kernel = device_code.load("probe", "smid")
        self.blocks = BLOCKS_AN_SM * cuda.whole().sms
        self._ids = torch.full((self.blocks,), -1, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()  # launches come on other streams

    def launch(self, stream: int, *, ns: int = 200_000, blocks: int | None = None) -> None:
        """Enqueues it on a stream, by its handle; also inside a capture of that stream."""
        number = self.blocks if blocks is None else blocks
        places = self._ids.data_ptr(), np.int64(ns)
        device_code.enqueue(self._kernel, stream, number, 32, *places)

    def seen(self) -> list[int]:
        """The SMs noted since the last call, sorted. Synchronises the device."""
        torch.cuda.synchronize()
        ids = sorted(set(self._ids.tolist()) - {-1})
        self._ids.fill_(-1)
        torch.cuda.synchronize()
        return ids


def _seen_on(cuda: Cuda, parts: list[Resource]) -> list[int]:
    with _green(cuda, parts) as green:
        where = Where(cuda)
        torch.cuda.synchronize()
        where.launch(green.handle)
        return where.seen()


@contextmanager
def _green(cuda: Cuda, parts: list[Resource]) -> Iterator[Green]:
    green = Green(cuda, parts)
    try:
        yield green
    finally:
        torch.cuda.synchronize()
        green.close()


def _host_us(launch: Callable[[], object], count: int) -> list[float]:
    times = []
    for number in range(count):
        begin = time.perf_counter_ns()
        launch()
        times.append((time.perf_counter_ns() - begin) / 1e3)
        if number % 100 == 99:
            torch.cuda.synchronize()  # the queue of launches is finite
    return times


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "least": ordered[0],
        "p99": ordered[int(0.99 * (len(ordered) - 1))],
    }


ANSWERS: dict[str, Ask] = dict(
    zip(
        QUESTIONS,
        (
            versions, splits, sm_ids, contexts, graph_sms, cudnn_nodes, clusters, launches, gpm,
            queues, queues, sm_ids,
        ),
        strict=True,
    )
)  # fmt: skip
