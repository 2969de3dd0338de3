"""The processes of a session's lanes: one is chosen for each launch, all have every tenant.

A launch goes to its lane's own process; while that one is down, to another lane's, one at a time;
while all are down it waits for the first that is back. When a process dies, the launch that it ran
raises LaneLost, and the executor tries each of its requests once more (session/executor.py).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from spacetime.errors import LaneLost
from spacetime.models.request import Work
from spacetime.models.timing import lane_threads
from spacetime.processes.area import Area
from spacetime.processes.keeper import Keeping, KeptLane, end_all, move, rest, wake
from spacetime.processes.process import COMMAND, ON_CORES, Answers, ChildProcess
from spacetime.processes.roster import Packed
from spacetime.units import SECOND


class LaneProcesses:
    """A process for each lane. Raises LaneLost where one does not start, and then there is none.

    environments: the variables that each lane's process gets besides this one's, such as an MPS
    share. host, opens: what each process loads and opens; see `ChildProcess`. before_kill: called
    with the number of a process that must be killed, such as to end an MPS client's work first.
    """

    def __init__(
        self,
        partitions: Sequence[Sequence[int]] = (),
        *,
        environments: Sequence[Mapping[str, str]] | None = None,
        host: str = ON_CORES,
        opens: tuple[str, str] | None = None,
        before_kill: Callable[[int], None] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        def start(lane: int, cores: Sequence[int]) -> ChildProcess:
            variables = environments[lane] if environments else {}
            return ChildProcess(
                lane,
                cores,
                environment=variables,
                host=host,
                opens=opens,
                before_kill=before_kill,
                command=command,
            )

        self._keeping = Keeping(start)
        self._here = threading.local()
        self._finalizer = weakref.finalize(self, end_all, self._keeping)
        self.open(partitions)

    def open(self, partitions: Sequence[Sequence[int]]) -> None:
        """Another lane on each partition, with a process that has every tenant. Raises LaneLost,
        and no lane is new."""
        lanes = self._keeping.lanes
        first = len(lanes)
        lanes += [KeptLane(number, tuple(cores)) for number, cores in enumerate(partitions, first)]
        try:
            wake(self._keeping, lanes[first:])
        except BaseException:
            del lanes[first:]
            raise

    def rest(self, lane: int) -> None:
        """Ends the process of a lane that runs nothing, until wake()."""
        rest(self._keeping, self._keeping.lanes[lane])

    def wake(self, numbers: Iterable[int]) -> None:
        """Starts processes for those of the lanes that rest. Raises LaneLost."""
        lanes = [self._keeping.lanes[number] for number in numbers]
        wake(self._keeping, [lane for lane in lanes if lane.rests.is_set()])

    @property
    def pids(self) -> list[int | None]:
        """Each lane's process, None while it is down."""
        children = [lane.child for lane in self._keeping.lanes]
        return [c.pid if c is not None and c.alive else None for c in children]

    @property
    def granted(self) -> list[int]:
        """Cores or SMs each lane's process sees; 0 while it is down."""
        children = [lane.child for lane in self._keeping.lanes]
        return [c.granted if c is not None and c.alive else 0 for c in children]

    @property
    def restarts(self) -> int:
        """How many processes took the place of one that died."""
        return sum(lane.restarts for lane in self._keeping.lanes)

    @contextmanager
    def serving(self, lane: int) -> Iterator[None]:
        """What a lane's dispatcher thread runs inside: the thread's launches are this lane's."""
        self._here.lane = lane
        with lane_threads(1):  # it copies; the cores are its process's
            yield

    def run(self, batch: Sequence[Work]) -> Answers:
        """Runs a launch of the calling thread's lane; raises LaneLost, or what the model raised."""
        number: int = self._here.lane
        while True:
            child = self._keeping.lanes[number].child
            if child is None or not child.alive:
                bounds = [work.until_ns for work in batch if work.until_ns is not None]
                child = self._choose(number, max(bounds, default=None))
            with child.busy:
                if self._serves(child):  # still, after others had their turn
                    return child.run(batch)

    def add(self, tenant: int, packed: Packed, slo_ns: int | None) -> dict[int, dict[str, Any]]:
        """Sends a model to every process. What each process found out about it, by lane.

        One process tries it first, alone: a model that ends its process ends only that one. Raises
        InvalidInput, ModelError, LaneLost.
        """
        roster = self._keeping.roster
        while True:
            first = self._choose(0, None)  # outside the lock, which a restart needs
            with roster.changing:
                if self._serves(first):
                    others = [child for child in self._keeping.children if child is not first]
                    return roster.add(first, others, tenant, packed, slo_ns)

    def update(self, tenant: int, model: Area) -> None:
        """Sends a tenant's model with other weights to every process. Raises ModelError,
        InvalidInput, and all have the old ones."""
        roster = self._keeping.roster
        with roster.changing:
            roster.update(self._keeping.children, tenant, model)

    def leave(self, tenant: int) -> None:
        """Takes a tenant from every process."""
        roster = self._keeping.roster
        with roster.changing:
            roster.leave(self._keeping.children, tenant)

    def lines(self, tenant: int) -> list[str]:
        """What runs a tenant's family, for explain()."""
        reply = self._choose(0, None).tell("lines", tenant=tenant)
        return [str(line) for line in reply["lines"]]

    def replace(self, lane: int, cores: Sequence[int]) -> None:
        """Moves a lane to other cores: its new process takes every model beside the old one, then
        its launches, then the old one ends; nothing waits for the start. Raises LaneLost."""
        move(self._keeping, self._keeping.lanes[lane], cores)

    def close(self) -> None:
        """Ends every process, and waits until all have ended. Idempotent."""
        self._finalizer()

    def _serves(self, child: ChildProcess) -> bool:
        return child.alive and self._keeping.lanes[child.lane].child is child

    def _choose(self, number: int, until_ns: int | None) -> ChildProcess:
        """The lane's process, or another that lives, or the first that will before `until_ns`."""
        keeping = self._keeping
        order = [*keeping.lanes[number:], *keeping.lanes[:number]]
        with keeping.changed:
            while True:
                if keeping.ended.is_set():
                    raise LaneLost(number, "the session has ended its process")
                for lane in order:
                    if lane.child is not None and lane.child.alive:
                        return lane.child
                if all(lane.given_up or lane.rests.is_set() for lane in order):
                    why = next((lane.given_up for lane in order if lane.given_up), "all rest")
                    raise LaneLost(number, f"no process can be started: {why}")
                left = 1.0 if until_ns is None else (until_ns - time.monotonic_ns()) / SECOND
                if left <= 0:
                    raise LaneLost(number, "no process came back before the request's deadline")
                keeping.changed.wait(left)
