"""Partitions of SMs under test: graphs on a partition's own stream, fed by a thread each.

Launches are captured on the partition, since a graph runs on the SMs of its capture. Which SMs
they are is found by a kernel that notes them: a partition's home is where it ran while all others
rested, and whatever runs elsewhere later has leaked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from spacetime.device import Device
from spacetime.errors import UnsupportedError
from spacetime.kernels.sm_ids import BLOCKS_AN_SM, Where
from spacetime.verify.under_test import Fed

TARGET_NS = 500_000  # a launch of the whole device's size lasts about this long or more
SIDE = 2048  # of compute's square product in fp32: on the SMs' own arithmetic units
AHEAD = 4  # launches enqueued before one is waited for: the stream never runs dry
WARM_UP = 3
HOME_NS = 300_000  # how long each block of the first look spins
LOOK_NS = 20_000
_TORCH: Any = torch  # what is typed differs from version to version


class SmPartition:
    """A native partition, its stream, and a captured graph of each kind of work.

    probe, start, stop and where are called from one thread.
    """

    def __init__(self, device: Device, units: Sequence[int], operations: _Operations) -> None:
        assert device.native is not None
        self.asked = tuple(units)
        self._native = device.native.partition(list(units))
        self.granted = self._native.sms
        on = torch.device(device.name)
        self._stream = _TORCH.cuda.ExternalStream(self._native.stream, device=on)
        self._capture = _TORCH.cuda.ExternalStream(self._native.capture_stream, device=on)
        self._warm = _TORCH.cuda.ExternalStream(self._native.warm_stream, device=on)
        self._operations = operations
        self._graphs = {kind: self._captured(run) for kind, run in operations.runs.items()}
        self._where = Where(BLOCKS_AN_SM * sum(device.sizes))
        self.home = self._look(HOME_NS)
        self._stop = threading.Event()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._fed: Fed | BaseException | None = None

    def work(self, kind: str) -> float:
        """GFLOP or GB of one launch."""
        return self._operations.work[kind]

    def probe(self, kind: str, launches: int) -> list[int]:
        """Nanoseconds of each launch, from the host's enqueueing it to its end."""
        times = []
        with torch.cuda.stream(self._stream):
            for _ in range(launches):
                begin = time.perf_counter_ns()
                self._graphs[kind].replay()
                self._stream.synchronize()
                times.append(time.perf_counter_ns() - begin)
        return times

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
        """Drops the graphs, then the partition."""
        self._stream.synchronize()
        self._graphs.clear()

    def _look(self, ns: int) -> frozenset[int]:
        self._where.launch(self._native.stream, ns=ns)
        self._stream.synchronize()
        return frozenset(self._where.taken(self._stream))

    def _captured(self, launch: Callable[[], object]) -> Any:
        torch.cuda.synchronize()
        with torch.cuda.stream(self._warm):
            for _ in range(WARM_UP):
                launch()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._capture, capture_error_mode="thread_local"):
            launch()
        return graph

    def _feed(self, kind: str) -> None:
        try:
            self._fed = self._keep_busy(self._graphs[kind])
        except BaseException as error:  # raised again by stop()
            self._fed = error
        self._started.set()

    def _keep_busy(self, graph: Any) -> Fed:
        """A few launches are always enqueued; the time the stream ran dry counts as idle."""
        waiting: deque[Any] = deque()
        launches = dry = 0
        with torch.cuda.stream(self._stream):
            while not self._stop.is_set():
                graph.replay()
                event = _TORCH.cuda.Event()
                event.record(self._stream)
                waiting.append(event)
                launches += 1
                if len(waiting) > AHEAD:
                    waiting.popleft().synchronize()
                    dry += waiting[-1].query()  # the newest is done as well: nothing was left
                    self._started.set()
            self._stream.synchronize()
        return Fed(launches, 1 - dry / max(1, launches))


class _Operations:
    """Work of three kinds as torch operations with operands of their own, and its size."""

    def __init__(self, device: torch.device, l2_bytes: int) -> None:
        a, b = torch.randn(2, SIDE, SIDE, device=device)
        product = torch.empty_like(a)
        near, far = l2_bytes // 8, 4 * l2_bytes  # of an operand: two fit in the L2, or none
        self.runs: dict[str, Callable[[], object]] = {
            "compute": lambda: torch.mm(a, b, out=product),
            "cache": _streaming(device, near, rounds=16),
            "memory": _streaming(device, far, rounds=1),
        }
        self.work = {
            "compute": 2 * SIDE**3 / 1e9,
            "cache": 16 * 2 * near / 1e9,
            "memory": 2 * far / 1e9,
        }


def _streaming(device: torch.device, held_bytes: int, *, rounds: int) -> Callable[[], object]:
    source = torch.ones(held_bytes // 4, device=device)
    target = torch.empty_like(source)

    def launch() -> None:
        for _ in range(rounds):
            torch.add(source, 1.0, out=target)  # a copy would use a copy engine and no SM

    return launch


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
        if not torch.cuda.is_available():
            raise UnsupportedError(f"device {device.name}: torch finds no CUDA device")
        self._device = device
        on = torch.device(device.name)
        # Each partition has operands of its own: what they share is the device, not the data.
        self.partitions = [
            SmPartition(device, units, _Operations(on, device.native.l2_bytes)) for units in lanes
        ]

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
