"""Work on the rungs of a device's ladder: captured graphs, run by the native runner, and a clock.

The same native path serves a CUDA device and a fake one; what differs is what a graph does and
which clock tells the time: the fake's runs in virtual time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

import spacetime._native as _native
from spacetime.devices.device import Device, open_device
from spacetime.errors import UnsupportedError
from spacetime.models.cuda.prepare import SPIN_NS

SIDE = 4096  # of the square product in bf16
COPIED_BYTES = 2**30  # by the copy: read once and written once
WARM_UP = 3
_TORCH: Any = torch  # what is typed differs from version to version
Kind = str  # "product", "copy" or "nothing"


@dataclass(frozen=True, slots=True)
class LaunchWork:
    """What one launch of a kind does, for a rate."""

    flop: float = 0.0
    moved_bytes: float = 0.0


WORK: dict[Kind, LaunchWork] = {
    "product": LaunchWork(flop=2.0 * SIDE**3, moved_bytes=3 * 2 * SIDE**2),
    "copy": LaunchWork(moved_bytes=2.0 * COPIED_BYTES),
    "nothing": LaunchWork(flop=1.0, moved_bytes=4.0),
}


class BareCalls:
    """Copy in, cuGraphLaunch, copy out, cuStreamSynchronize: by ctypes, and nothing else."""

    def __init__(self, native: _native.CudaDevice, stream: int, graph: int) -> None:
        driver = ctypes.CDLL("libcuda.so.1")
        host, device = _native.PinnedMemory(native, 64), _native.DeviceMemory(native, 64)
        self._kept = host, device
        pointer, number, on = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p(stream)
        places = number(device.address), number(host.address)
        size = ctypes.c_size_t(4)
        # Prepared beforehand: what is timed is four calls of functions that are looked up already.
        self._copy, self._launch = driver.cuMemcpyAsync, driver.cuGraphLaunch
        self._wait = driver.cuStreamSynchronize
        self._inward, self._outward = (*places, size, on), (*places[::-1], size, on)
        self._graph, self._stream = (pointer(graph), on), on

    def run_ns(self) -> int:
        """Nanoseconds of the host; RuntimeError with the code of the first call that failed."""
        begin = time.perf_counter_ns()
        code = (
            self._copy(*self._inward)
            or self._launch(*self._graph)
            or self._copy(*self._outward)
            or self._wait(self._stream)
        )
        elapsed_ns = time.perf_counter_ns() - begin
        if code:
            raise RuntimeError(f"a launch by bare driver calls failed with {code}")
        return elapsed_ns


class Rung:
    """A partition of some units, with a prepared launch of each kind asked for."""

    def __init__(self, ladder: Ladder, units: Sequence[int], kinds: Sequence[Kind]) -> None:
        self._ladder = ladder
        self.units = list(units)
        self.partition = ladder.native.partition(self.units)
        self.sms = self.partition.sms
        self._graphs = {kind: ladder.graph(self.partition, kind) for kind in kinds}
        self._runners = {kind: self._runner(kind) for kind in kinds}
        self._request = _native.Payload(0, 1, [self._input.data_ptr()], [self._output.data_ptr()])

    def run_ns(self, kind: Kind) -> int:
        """Runs a launch and waits for it: nanoseconds of the device's clock of this ladder."""
        begin = self._ladder.now_ns()
        self._runners[kind].time([self._request])
        return self._ladder.now_ns() - begin

    def device_ns(self, kind: Kind, repetitions: int) -> float:
        """The device's own nanoseconds of a launch, the median of some."""
        return median(self._runners[kind].time([self._request])[1] for _ in range(repetitions))

    def host_ns(self, kind: Kind, count: int) -> tuple[list[int], list[int]]:
        """Host time of launches by the runner, and of the bare driver calls for the same work.

        Both copy four bytes in and out and wait; in turn, so that both see the same machine.
        """
        calls = BareCalls(self._ladder.native, self.partition.stream, self._graphs[kind].handle)
        runner, request = self._runners[kind], [self._request]
        ours, bare = [], []
        for _ in range(count):
            ours.append(runner.time(request)[0])
            bare.append(calls.run_ns())
        return ours, bare

    def _runner(self, kind: Kind) -> _native.Runner:
        self._input, self._output = torch.zeros(1), torch.zeros(1)
        native = self._ladder.native
        runner = _native.Runner(
            native, self.partition, inputs=[4], outputs=[4], buckets=[1], spin_ns=SPIN_NS
        )
        runner.add(1, self._graphs[kind])
        return runner


class Ladder:
    """A device's rungs. `rung` makes the partition and captures its graphs."""

    def __init__(self, name: str) -> None:
        self.device = open_device(name)
        if self.device.kind != "sm" or self.device.native is None:
            raise UnsupportedError(f"device {name!r}: partitions of SMs need cuda:N or fake:h200")
        self.native = self.device.native
        self._work = None if self.device.fake else _operations(name)

    def now_ns(self) -> int:
        """The host's clock: virtual on a fake device."""
        if isinstance(self.native, _native.FakeCudaDevice):
            return self.native.driver.now_ns
        return time.perf_counter_ns()

    def rung(self, units: Sequence[int], kinds: Sequence[Kind] = ("nothing",)) -> Rung:
        """A rung of these units."""
        return Rung(self, units, kinds)

    def prefixes(self) -> list[list[int]]:
        """The rungs that begin at the first unit, smallest first."""
        count = len(self.device.units)
        return [list(range(k)) for k in range(1, count + 1)]

    def graph(self, partition: _native.SmPartition, kind: Kind) -> _native.GraphExec:
        """A launch of this kind, captured on the partition."""
        if isinstance(self.native, _native.FakeCudaDevice):
            work = WORK[kind]
            return self.native.capture(partition, flops=work.flop, nbytes=work.moved_bytes)
        assert self._work is not None
        return _captured(self.device, partition, self._work[kind])


def _operations(name: str) -> dict[Kind, Callable[[], object]]:
    """Returns the kinds of work as torch operations; all rungs share their operands."""
    if not torch.cuda.is_available():
        raise UnsupportedError(f"device {name}: torch {torch.__version__} finds no CUDA device")
    on = torch.device(name)
    a, b = torch.randn(2, SIDE, SIDE, device=on, dtype=torch.bfloat16)
    product = torch.empty_like(a)
    source = torch.ones(COPIED_BYTES // 4, device=on)
    target = torch.empty_like(source)
    element = torch.zeros(1, device=on)
    return {
        "product": lambda: torch.mm(a, b, out=product),
        "copy": lambda: torch.add(source, 1, out=target),  # by SMs: copy_ would use a copy engine
        "nothing": lambda: element.add_(1),
    }


def _captured(
    device: Device, partition: _native.SmPartition, launch: Callable[[], object]
) -> _native.GraphExec:
    assert device.native is not None
    on = torch.device(device.name)
    warm = _TORCH.cuda.ExternalStream(partition.warm_stream, device=on)
    stream = _TORCH.cuda.ExternalStream(partition.capture_stream, device=on)
    torch.cuda.synchronize(on)
    with torch.cuda.stream(warm):
        for _ in range(WARM_UP):
            launch()
    torch.cuda.synchronize(on)
    graph = _TORCH.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        launch()
    return _native.GraphExec.borrow(device.native, graph.raw_cuda_graph_exec(), graph)
