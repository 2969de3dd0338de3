"""Partitions of cores under test: a real lane's thread and its team of intra-op threads.

The cores are taken as a session's lanes take them, through the native lane, and read back from it.
Each partition has one thread, which runs what it is handed; the kernels give the interpreter lock
away, and so both sides of a pair run at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import median_low
from typing import Any, TypeVar

from spacetime.devices.device import Device
from spacetime.kernels import stress_cpu
from spacetime.models.timing import lane_threads
from spacetime.policy import Policy
from spacetime.session.executor import Executor
from spacetime.verify.under_test import Fed

TARGET_NS = 500_000  # a launch lasts about this long
ROUNDS = 64  # of a launch while that is found out
KINDS = stress_cpu.KINDS
Answer = TypeVar("Answer")
_TASKS = Path("/proc/self/task")


class CorePartition:
    """A lane on `cores`. probe, start, stop and where are called from one thread."""

    def __init__(
        self, executor: Executor, cores: Sequence[int], *, memory_bytes: int | None
    ) -> None:
        self.asked = tuple(cores)
        self.home = frozenset(cores)
        self.granted = 0  # cores in the mask that the lane's thread read back
        self._lane = executor.native.add_lane(list(cores))
        self._memory_bytes = memory_bytes
        self._launches: dict[str, Callable[[], object]] = {}
        self._work: dict[str, float] = {}
        self._orders: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
        self._stop = threading.Event()
        self._started = threading.Event()
        self._ended = threading.Event()  # close() waits for no more than a launch
        before = set(_tasks())
        self._thread = threading.Thread(target=self._serve, name=f"verify-{cores[0]}", daemon=True)
        self._thread.start()
        try:
            self._ask(self._prepare)
        except BaseException:  # such as Ctrl-C
            self.close()
            raise
        self.team = sorted(set(_tasks()) - before)  # the lane's thread and its intra-op threads

    def work(self, kind: str) -> float:
        """GFLOP or GB of one launch."""
        return self._work[kind]

    def probe(self, kind: str, launches: int) -> list[int]:
        """Nanoseconds of each launch."""
        return self._ask(lambda: self._timed(self._launches[kind], launches))

    def start(self, kind: str) -> None:
        """Feeds launches until stop()."""
        self._stop.clear()
        self._started.clear()
        self._orders.put(lambda: self._feed(self._launches[kind]))
        self._started.wait()

    def stop(self) -> Fed:
        """Ends what start() began."""
        self._stop.set()
        fed: Fed = self._result()
        return fed

    def where(self) -> frozenset[int]:
        """The cores on which the lane's thread and its team run, or ran last."""
        return frozenset(_processor(task) for task in self.team)

    def close(self) -> None:
        """Ends the thread, after the launch that runs."""
        self._ended.set()
        self._stop.set()
        self._orders.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with lane_threads(len(self.asked)):
            self._lane.enter()
            self.granted = len(self._lane.granted)
            while (order := self._orders.get()) is not None:
                self._done.put(_outcome(order))
                self._started.set()  # also when the first launch raised
            self._lane.leave()

    def _ask(self, order: Callable[[], Answer]) -> Answer:
        self._orders.put(order)
        answer: Answer = self._result()
        return answer

    def _result(self) -> Any:
        result, error = self._done.get()
        if error is not None:
            raise error
        return result

    def _prepare(self) -> None:
        for kind in KINDS:
            launch, work = stress_cpu.stressor(
                kind, len(self.asked), memory_bytes=self._memory_bytes
            )
            launch(ROUNDS)  # compiles
            took = median_low(self._timed(partial(launch, ROUNDS), 9))
            rounds = max(1, ROUNDS * TARGET_NS // took)
            self._launches[kind] = partial(launch, rounds)
            self._work[kind] = rounds * work / 1e9

    def _feed(self, launch: Callable[[], object]) -> Fed:
        begin, busy, launches = time.perf_counter_ns(), 0, 0
        while not self._stop.is_set():
            busy += sum(self._timed(launch, 1))
            launches += 1
            self._started.set()
        return Fed(launches, busy / (time.perf_counter_ns() - begin))

    def _timed(self, launch: Callable[[], object], launches: int) -> list[int]:
        """Nanoseconds of each; fewer once the partition is closed."""
        times: list[int] = []
        while len(times) < launches and not self._ended.is_set():
            begin = time.perf_counter_ns()
            launch()
            times.append(time.perf_counter_ns() - begin)
        return times


class Cores:
    """A partition of a CPU for each list of cores, each with a thread. close() ends them."""

    private = frozenset({"compute", "cache"})
    shared = "memory bandwidth, the last-level cache, power and clocks are shared by all cores"

    def __init__(
        self, device: Device, lanes: Sequence[Sequence[int]], *, memory_bytes: int | None = None
    ) -> None:
        self._device = device
        self._executor = Executor(Policy.named("space-only"), timeline=False)
        self.partitions: list[CorePartition] = []
        try:
            for cores in lanes:
                partition = CorePartition(self._executor, cores, memory_bytes=memory_bytes)
                self.partitions.append(partition)
        except BaseException:  # such as Ctrl-C: none of the threads may outlive it
            self.close()
            raise

    @property
    def facts(self) -> dict[str, object]:
        """The device, and which cores of different partitions are threads of one core."""
        return {
            "device": self._device.name,
            "kind": "cores",
            "unit": "core",
            "cores": list(self._device.cores),
            "split cores": self._split_cores(),
        }

    def close(self) -> None:
        """Ends the partitions' threads."""
        for partition in self.partitions:
            partition.close()
        self._executor.close(drain=False)

    def _split_cores(self) -> list[list[int]]:
        """Hardware threads of one physical core that lie in different partitions."""
        owner = {core: p for p, partition in enumerate(self.partitions) for core in partition.home}
        groups = {_siblings(core) for core in owner}
        return sorted(
            sorted(group) for group in groups if len({owner.get(core) for core in group}) > 1
        )


def _outcome(order: Callable[[], object]) -> tuple[object, BaseException | None]:
    try:
        return order(), None
    except BaseException as error:  # raised again in the thread that asked
        return None, error


def _tasks() -> list[int]:
    return [int(name) for name in os.listdir(_TASKS)]


def _processor(task: int) -> int:
    """The core a thread of this process runs on, or ran last (proc(5), field 39 of stat)."""
    stat = (_TASKS / str(task) / "stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[36])


def _siblings(core: int) -> frozenset[int]:
    """The hardware threads of this one's physical core, itself among them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not path.exists():
        return frozenset({core})
    siblings: set[int] = set()
    for part in path.read_text(encoding="ascii").strip().split(","):
        first, _, last = part.partition("-")
        siblings |= set(range(int(first), int(last or first) + 1))
    return frozenset(siblings)
