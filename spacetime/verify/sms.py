"""Partitions of SMs under test: stressors on a partition's own stream, fed by a thread each.

Which SMs a partition has is found by a kernel that notes where its blocks run: home is where it ran
while all others rested, and whatever runs elsewhere later has leaked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from spacetime.devices.device import Device
from spacetime.errors import UnsupportedError
from spacetime.kernels import cuda
from spacetime.kernels.cuda import stress
from spacetime.verify.under_test import Fed

KINDS = ("compute", "cache", "memory")
TARGET_NS = 2_000_000  # a launch lasts at least this long: what surrounds it is small beside it
AHEAD = 4  # launches enqueued before one is waited for: the stream never runs dry
BLOCKS_AN_SM = 4  # of the kernel that notes where it runs: none of the partition's is left out
HOME_NS, LOOK_NS = 300_000, 20_000  # how long its blocks spin: at first, and beside a stressor
_TORCH: Any = torch  # what is typed differs from version to version


class StreamPartition:
    """A native partition and a launch of each kind of work on its stream.

    probe, start, stop and where are called from one thread.
    """

    def __init__(self, device: Device, units: Sequence[int]) -> None:
        assert device.native is not None
        self.asked = tuple(units)
        self._native = device.native.partition(list(units))
        self.granted = self._native.sms
        on = torch.device(device.name)
        self._stream = _TORCH.cuda.ExternalStream(self._native.stream, device=on)
        self._launches: dict[str, Callable[[], object]] = {}
        self._work: dict[str, float] = {}
        for kind in KINDS:
            self._prepare(kind)
        blocks = BLOCKS_AN_SM * sum(device.sizes)
        self._ids = torch.full((blocks,), -1, dtype=torch.int32, device=on)
        torch.cuda.synchronize(on)  # filled on another stream
        self.home = self._look(HOME_NS)
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._fed: Fed | BaseException | None = None

    def work(self, kind: str) -> float:
        """GFLOP or GB of one launch."""
        return self._work[kind]

    def probe(self, kind: str, launches: int) -> list[int]:
        """Nanoseconds of each launch by the device's clock.

        All are enqueued before one is waited for. The host shares Python's lock with the thread
        that feeds the stressor; between launches that wait on the stream it cannot be seen.
        """
        marks = [self._marked()]
        for _ in range(launches):
            self._launches[kind]()
            marks.append(self._marked())
        marks[-1].synchronize()
        return [round(a.elapsed_time(b) * 1e6) for a, b in pairwise(marks)]

    def _marked(self) -> Any:
        event = _TORCH.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def start(self, kind: str) -> None:
        """Feeds launches until stop()."""
        self._stop.clear()
        self._started.clear()
        self._thread = threading.Thread(target=self._feed, args=(kind,), daemon=True)
        self._thread.start()
        self._started.wait()

    def stop(self) -> Fed:
        """Ends what start() began; raises what it raised."""
        assert self._thread is not None
        self._stop.set()
        self._thread.join()
        if isinstance(self._fed, BaseException):
            raise self._fed
        assert self._fed is not None
        return self._fed

    def where(self) -> frozenset[int]:
        """The SMs of a launch that takes its turn on the partition's stream."""
        return self._look(LOOK_NS)

    def close(self) -> None:
        """Ends what runs and waits for it; the partition goes with the last reference."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._stream.synchronize()

    def _prepare(self, kind: str) -> None:
        launch, amount = stress.stressor(kind, self.granted, self._native.stream)
        launch(1)  # compiles, and touches every page
        rounds = 1
        while self._elapsed_ns(partial(launch, rounds)) < TARGET_NS:
            rounds *= 2
        self._launches[kind] = partial(launch, rounds)
        self._work[kind] = rounds * amount / 1e9

    def _elapsed_ns(self, launch: Callable[[], object]) -> int:
        begin = time.perf_counter_ns()
        launch()
        self._stream.synchronize()
        return time.perf_counter_ns() - begin

    def _look(self, ns: int) -> frozenset[int]:
        kernel, blocks = cuda.load("probe", "smid"), len(self._ids)
        with torch.cuda.stream(self._stream):
            self._ids.fill_(-1)
            cuda.enqueue(
                kernel, self._native.stream, blocks, 32, self._ids.data_ptr(), np.int64(ns)
            )
            sms = self._ids.tolist()  # waits for this stream only: others may be at work
        return frozenset(sms) - {-1}

    def _feed(self, kind: str) -> None:
        try:
            self._fed = self._keep_busy(self._launches[kind])
        except BaseException as error:  # raised again by stop()
            self._fed = error
        self._started.set()

    def _keep_busy(self, launch: Callable[[], object]) -> Fed:
        """Some launches are always enqueued; how often all of them were done counts as idle."""
        waiting: deque[Any] = deque()
        launches = dry = 0
        while not self._stop.is_set():
            launch()
            waiting.append(self._stream.record_event())
            launches += 1
            if len(waiting) > AHEAD:
                waiting.popleft().synchronize()
                dry += waiting[-1].query()  # the newest is done as well: nothing was left
                self._started.set()
        self._stream.synchronize()
        return Fed(launches, 1 - dry / max(1, launches))


class Sms:
    """A CUDA device divided into partitions of SMs. close() ends them."""

    private = frozenset({"compute"})
    shared = (
        "L2, memory bandwidth, copy engines, power and clocks are shared by all partitions of SMs"
    )

    def __init__(self, device: Device, lanes: Sequence[Sequence[int]]) -> None:
        if device.native is None or device.fake:
            raise UnsupportedError(
                f"device {device.name!r}: isolation is measured, and a fake device's is assumed; "
                "use cpu or cuda:N"
            )
        if not cuda.available:
            raise UnsupportedError("stressors for SMs need CuPy: pip install 'spacetime[cuda]'")
        self._device = device
        self.partitions = [StreamPartition(device, units) for units in lanes]

    @property
    def facts(self) -> dict[str, object]:
        """The device, and by which mechanism it is divided."""
        native = self._device.native
        assert native is not None
        return {
            "device": f"{self._device.name}: {native.name}",
            "kind": "sm",
            "unit": "SM",
            "mechanism": native.why_unbounded or "green contexts",
        }

    def close(self) -> None:
        """Ends the partitions."""
        for partition in self.partitions:
            partition.close()
