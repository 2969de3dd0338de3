"""The processes of a session's lanes: chosen for each launch, watched, restarted, replaced.

A launch goes to its lane's own process; while that one is down, to another lane's, one at a time;
while all are down it waits for the first that is back. A request whose process dies is raised
LaneLost, and the executor tries it once more (executor.py).
"""

from __future__ import annotations

import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from os import close as close_fd
from os import pidfd_open
from typing import Any

from spacetime.errors import LaneLost
from spacetime.proc.area import Area
from spacetime.proc.process import COMMAND, Answers, ChildProcess
from spacetime.runner import Work
from spacetime.units import MS

LOOK_MS = 100  # between two looks at a process's heart
STILL_LOOKS = 20  # without a beat, after which a process is taken for hung
MOST_STARTS = 5  # in a row that fail, after which a lane stays down
_LIVED_S = 10.0  # after which a death is no longer held against the next start


def backoff_s(failures: int) -> float:
    """How long to wait before a start, after so many deaths or failed starts in a row."""
    return 0.0 if failures < 1 else min(0.05 * 2.0 ** min(failures - 1, 30), 5.0)


@dataclass(frozen=True, slots=True)
class Packed:
    """A tenant as a process takes it: its model in shared memory, and how to hold it."""

    model: Area
    name: str
    fuse: bool
    buckets: Sequence[int]


@dataclass(slots=True)
class _Slot:
    """A lane: the process that serves it now, if any, and what became of those before."""

    lane: int
    cores: tuple[int, ...]
    child: ChildProcess | None = None
    restarts: int = 0
    failures: int = 0  # in a row
    given_up: str | None = None
    keeper: threading.Thread | None = None


@dataclass(slots=True)
class _State:
    """What keepers share with their owner, which they must not keep alive."""

    slots: list[_Slot]
    start: Callable[[int, Sequence[int]], ChildProcess]
    still_looks: int
    roster: dict[int, Packed] = field(default_factory=dict)
    changing: threading.Lock = field(default_factory=threading.Lock)  # roster, and who has it
    changed: threading.Condition = field(default_factory=threading.Condition)
    stop: threading.Event = field(default_factory=threading.Event)


class Lanes:
    """A process for each partition. Raises LaneLost where one does not start.

    environments: variables each lane's process gets besides this one's, such as an MPS share.
    opens: the device each opens, and its kind; None computes on the cores. before_kill: called with
    the number of a process that must be killed, such as to end an MPS client's work first.
    """

    def __init__(
        self,
        partitions: Sequence[Sequence[int]],
        *,
        environments: Sequence[Mapping[str, str]] | None = None,
        opens: tuple[str, str] | None = None,
        before_kill: Callable[[int], None] | None = None,
        command: Sequence[str] = COMMAND,
        still_looks: int = STILL_LOOKS,
    ) -> None:
        variables = environments or [{}] * len(partitions)

        def start(lane: int, cores: Sequence[int]) -> ChildProcess:
            return ChildProcess(
                lane, cores, environment=variables[lane], opens=opens, before_kill=before_kill,
                command=command,
            )  # fmt: skip

        slots = [_Slot(lane, tuple(cores)) for lane, cores in enumerate(partitions)]
        self._state = _State(slots, start, still_looks)
        self._here = threading.local()
        self._finalizer = weakref.finalize(self, _end, self._state)
        _start_all(self._state)
        for slot in slots:
            slot.keeper = threading.Thread(
                target=_keep, args=(self._state, slot), name=f"spacetime-keeper-{slot.lane}",
                daemon=True,
            )  # fmt: skip
            slot.keeper.start()

    @property
    def pids(self) -> list[int | None]:
        """Each lane's process, None while it is down."""
        children = [slot.child for slot in self._state.slots]
        return [c.pid if c is not None and c.alive else None for c in children]

    @property
    def granted(self) -> list[int]:
        """Cores or SMs each lane's process sees; 0 while it is down."""
        children = [slot.child for slot in self._state.slots]
        return [c.granted if c is not None and c.alive else 0 for c in children]

    @property
    def restarts(self) -> int:
        """How many processes took the place of one that died."""
        return sum(slot.restarts for slot in self._state.slots)

    @contextmanager
    def serving(self, lane: Any) -> Iterator[None]:
        """What a lane's dispatcher thread runs inside: its launches are this lane's."""
        self._here.lane = lane.id
        yield

    def run(self, batch: Sequence[Work]) -> Answers:
        """Runs a launch of the calling thread's lane; raises LaneLost, or what the model raised."""
        lane: int = self._here.lane
        state = self._state
        while True:
            child = state.slots[lane].child
            if child is None or not child.alive:
                bounds = [work.until_ns for work in batch if work.until_ns is not None]
                child = _choose(state, lane, max(bounds, default=None))
            with child.busy:  # and not replaced while this launch waited for its turn
                if child.alive and state.slots[child.lane].child is child:
                    return child.run(batch)

    def add(self, tenant: int, packed: Packed, slo_ns: int | None) -> dict[int, dict[str, Any]]:
        """Sends a model to every process; what each found out, by lane.

        The first one is alone in trying it: a model that ends its process ends one. Raises
        InvalidInput, ModelError, LaneLost.
        """
        state = self._state
        while True:
            first = _choose(state, 0, None)  # outside the lock, which a restart needs
            with state.changing:
                if first.alive:
                    return _add_everywhere(state, first, tenant, packed, slo_ns)

    def leave(self, tenant: int) -> None:
        """Takes a tenant from every process."""
        state = self._state
        with state.changing:
            packed = state.roster.pop(tenant, None)
            if packed is None:
                return
            _leave_everywhere(state, tenant)
            packed.model.close()

    def lines(self, tenant: int) -> list[str]:
        """What runs a tenant's family, for explain()."""
        told = _choose(self._state, 0, None).tell("lines", tenant=tenant)
        return [str(line) for line in told["lines"]]

    def replace(self, lane: int, cores: Sequence[int]) -> None:
        """Moves a lane to other cores: its new process takes every model beside the old one, then
        its launches, then the old one ends; nothing waits for the start."""
        state, slot = self._state, self._state.slots[lane]
        new = state.start(lane, cores)
        try:
            with state.changing:
                _replay(state, new)
                old = slot.child
                if old is not None:
                    with old.busy:  # a launch it runs now is answered first
                        slot.child, slot.cores = new, tuple(cores)
                else:
                    slot.child, slot.cores = new, tuple(cores)
        except BaseException:
            new.leave()
            raise
        with state.changed:
            state.changed.notify_all()
        if old is not None:
            old.leave()
            _release_later(old)

    def close(self) -> None:
        """Ends every process, and waits until all have ended. Idempotent."""
        self._finalizer()


def _choose(state: _State, lane: int, until_ns: int | None) -> ChildProcess:
    """The lane's process, or another that lives, or the first that will before `until_ns`."""
    with state.changed:
        while True:
            if state.stop.is_set():
                raise LaneLost(lane, "the session has ended its process")
            order = [*state.slots[lane:], *state.slots[:lane]]
            for slot in order:
                if slot.child is not None and slot.child.alive:
                    return slot.child
            if all(slot.given_up for slot in order):
                raise LaneLost(lane, f"no process can be started: {order[0].given_up}")
            left = 1.0 if until_ns is None else (until_ns - time.monotonic_ns()) / (1000 * MS)
            if left <= 0:
                raise LaneLost(lane, "no process came back before the request's deadline")
            state.changed.wait(left)


def _tell_add(
    child: ChildProcess, tenant: int, packed: Packed, buckets: Sequence[int], slo_ns: int | None
) -> dict[str, Any]:
    return child.tell(
        "add", packed.model.fd, tenant=tenant, name=packed.name, buckets=list(buckets),
        slo_ns=slo_ns, fuse=packed.fuse,
    )  # fmt: skip


def _add_everywhere(
    state: _State, first: ChildProcess, tenant: int, packed: Packed, slo_ns: int | None
) -> dict[int, dict[str, Any]]:
    told: dict[int, dict[str, Any]] = {}
    failed: list[Exception] = []

    def tell(child: ChildProcess, buckets: Sequence[int], slo_ns: int | None) -> None:
        try:
            told[child.lane] = _tell_add(child, tenant, packed, buckets, slo_ns)
        except LaneLost as why:
            if child is first:
                failed.append(why)  # else its next process is told with the others
        except Exception as why:
            failed.append(why)

    tell(first, packed.buckets, slo_ns)
    if not failed:
        fitting: list[int] = told[first.lane]["buckets"]
        state.roster[tenant] = replace(packed, buckets=fitting)
        others = [slot.child for slot in state.slots if slot.child is not first]
        _at_once([partial(tell, child, fitting, None) for child in others if child is not None])
    if failed:
        state.roster.pop(tenant, None)
        _leave_everywhere(state, tenant)
        raise failed[0]
    return told


def _leave_everywhere(state: _State, tenant: int) -> None:
    for slot in state.slots:
        if slot.child is not None:
            with suppress(LaneLost):
                slot.child.tell("leave", tenant=tenant)


def _replay(state: _State, child: ChildProcess) -> None:
    """Tells a new process of every tenant there is."""
    for tenant, packed in state.roster.items():
        _tell_add(child, tenant, packed, packed.buckets, None)


def _start_all(state: _State) -> None:
    """Starts every lane's process at once; ends them again if one fails."""
    failed: list[LaneLost] = []

    def start(slot: _Slot) -> None:
        try:
            slot.child = state.start(slot.lane, slot.cores)
        except LaneLost as why:
            failed.append(why)

    _at_once([partial(start, slot) for slot in state.slots])
    if failed:
        _end(state)
        raise failed[0]


def _at_once(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _keep(state: _State, slot: _Slot) -> None:
    """Body of a lane's keeper: until the session ends, there is a process, or soon will be."""
    while not state.stop.is_set():
        if slot.child is not None:
            born = time.monotonic()
            _watch(state, slot)
            slot.failures = 1 if time.monotonic() - born > _LIVED_S else slot.failures + 1
        if not state.stop.wait(backoff_s(slot.failures)) and not _restart(state, slot):
            slot.failures += 1
            if slot.failures >= MOST_STARTS and slot.given_up:
                break
    with state.changed:
        state.changed.notify_all()


def _restart(state: _State, slot: _Slot) -> bool:
    try:
        child = state.start(slot.lane, slot.cores)
    except LaneLost as why:
        slot.given_up = why.why if slot.failures + 1 >= MOST_STARTS else None
        return False
    try:
        with state.changing:
            _replay(state, child)
            slot.child = child
    except Exception as why:
        child.leave()
        child.release()
        slot.given_up = str(why) if slot.failures + 1 >= MOST_STARTS else None
        return False
    slot.restarts += 1
    with state.changed:
        state.changed.notify_all()
    return True


def _watch(state: _State, slot: _Slot) -> None:
    """Returns once the lane's process has ended, by itself or because its heart stood still."""
    while True:
        child = slot.child
        assert child is not None
        watched = pidfd_open(child.pid)
        try:
            _until_still(state, slot, child, watched)
        finally:
            close_fd(watched)
        if slot.child is child:
            break
    child.kill()
    slot.child = None
    _release_later(child)


def _until_still(state: _State, slot: _Slot, child: ChildProcess, watched: int) -> None:
    """Until `child` has ended, beats no more, or serves the lane no more.

    Looks are counted, not time: a machine that was suspended, or this process stopped, is no
    reason to take another one for hung.
    """
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    still, beats = 0, -1
    while slot.child is child and still < state.still_looks:
        if poll.poll(LOOK_MS):
            return
        still = still + 1 if child.beats == beats else 0
        beats = child.beats


def _release_later(child: ChildProcess) -> None:
    """Gives its memory back once the launch that was in it has noticed."""
    with child.busy:
        child.release()


def _end(state: _State) -> None:
    """Ends every process and keeper."""
    state.stop.set()
    with state.changed:
        state.changed.notify_all()
    children = [slot.child for slot in state.slots if slot.child is not None]
    _at_once([child.leave for child in children])
    for slot in state.slots:
        if slot.keeper is not None and slot.keeper is not threading.current_thread():
            slot.keeper.join()
        if slot.child is not None:  # started meanwhile
            slot.child.leave()
            _release_later(slot.child)
            slot.child = None
    for packed in state.roster.values():
        packed.model.close()
    state.roster.clear()
