"""Keeps a process for every lane: watched, started again when it died, replaced when it moves.

A lane that does not rest has a keeper, a thread. Whoever takes a process out of its lane
(`_swapped`), and nobody else, lets it end. Whoever puts a process in holds the roster's lock, so
that the process has every tenant.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from spacetime.errors import LaneLost
from spacetime.processes.process import LOOK_MS, ChildProcess, Pulse
from spacetime.processes.roster import Roster, at_once

MOST_STARTS = 5  # in a row that fail, after which a lane stays down
_LIVED_S = 10.0  # after which a death is no longer held against the next start


def backoff_s(failures: int) -> float:
    """How long to wait before a start; failures: early deaths and failed starts in a row."""
    return 0.0 if failures < 1 else min(0.05 * 2.0 ** min(failures - 1, 30), 5.0)


@dataclass(slots=True, eq=False)
class KeptLane:
    """A lane: the process that serves it now, if any, and what became of those before."""

    number: int
    cores: tuple[int, ...]
    child: ChildProcess | None = None
    restarts: int = 0
    given_up: str | None = None  # why, while it stays down
    keeper: threading.Thread | None = None
    rests: threading.Event = field(default_factory=threading.Event)  # or has ended


@dataclass(slots=True, eq=False)
class Keeping:
    """What keepers share with their owner, which they must not keep alive."""

    start: Callable[[int, Sequence[int]], ChildProcess]
    lanes: list[KeptLane] = field(default_factory=list)
    roster: Roster = field(default_factory=Roster)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: threading.Event = field(default_factory=threading.Event)
    pid: int = field(default_factory=os.getpid)

    @property
    def children(self) -> list[ChildProcess]:
        """The processes there are now, in the order of their lanes."""
        children = [lane.child for lane in self.lanes]
        return [child for child in children if child is not None]

    def tell(self) -> None:
        """Wakes who waits for a process, or for the end of waiting for one."""
        with self.changed:
            self.changed.notify_all()


def wake(keeping: Keeping, lanes: Sequence[KeptLane]) -> None:
    """Gives lanes that rest, or are new, a process with every tenant, at once, and a keeper.

    All rest where one does not start. Raises LaneLost, ModelError.
    """
    failed: list[Exception] = []

    def start(lane: KeptLane) -> None:
        lane.rests.clear()
        try:
            move(keeping, lane, lane.cores)
        except Exception as why:
            failed.append(why)

    at_once([partial(start, lane) for lane in lanes])
    if failed:
        for lane in lanes:
            rest(keeping, lane)
        raise failed[0]
    for lane in lanes:
        lane.keeper = threading.Thread(
            target=_keep, args=(keeping, lane), name=f"spacetime-keeper-{lane.number}", daemon=True
        )
        lane.keeper.start()


def rest(keeping: Keeping, lane: KeptLane) -> None:
    """Ends a lane's process and its keeper, until it is woken."""
    lane.rests.set()
    keeping.tell()
    with keeping.roster.changing:  # after it nothing is put into the lane any more
        child = lane.child
        taken = child is not None and _swapped(lane, child, None)
    if child is not None and taken:
        _end(child)
    if lane.keeper is not None and lane.keeper is not threading.current_thread():
        lane.keeper.join()


def end_all(keeping: Keeping) -> None:
    """Ends every process and keeper; nothing in a process forked from the one that owns them."""
    if keeping.pid != os.getpid():
        return
    keeping.ended.set()
    for lane in keeping.lanes:  # first, or their keepers would start others
        lane.rests.set()
    at_once([child.leave for child in keeping.children])
    for lane in keeping.lanes:
        rest(keeping, lane)
    with keeping.roster.changing:
        keeping.roster.close()


def move(keeping: Keeping, lane: KeptLane, cores: Sequence[int]) -> None:
    """Gives a lane a process on other cores, beside the one it has until then. Raises LaneLost."""
    new = keeping.start(lane.number, cores)
    try:
        with keeping.roster.changing:
            keeping.roster.replay(new)
            old = _put(keeping, lane, new)
    except BaseException:
        _end(new)
        raise
    keeping.tell()
    if old is not None:
        _end(old)


def _put(keeping: Keeping, lane: KeptLane, new: ChildProcess) -> ChildProcess | None:
    """Puts `new` in a lane; what was there. Raises LaneLost once the session has ended."""
    if keeping.ended.is_set():
        raise LaneLost(lane.number, "the session has ended its process")
    lane.cores = new.cores
    while not _swapped(lane, old := lane.child, new):
        pass  # it died just now, and its keeper was faster
    return old


def _swapped(lane: KeptLane, old: ChildProcess | None, new: ChildProcess | None) -> bool:
    """Puts `new` in the place of `old`, between two launches; False where `old` has gone
    already."""
    with nullcontext() if old is None else old.busy:
        if lane.child is not old:
            return False
        lane.child = new
        return True


def _keep(keeping: Keeping, lane: KeptLane) -> None:
    """Body of a lane's keeper: until the lane rests, there is a process, or soon will be."""
    deaths = failed = 0  # in a row: processes that died young; starts that failed
    while not lane.rests.is_set():
        if lane.child is not None:
            born = time.monotonic()
            _watch(lane)
            deaths = 0 if time.monotonic() - born > _LIVED_S else deaths + 1
            failed = 0
        if lane.rests.wait(backoff_s(deaths + failed)):
            break
        if (why := _restart(keeping, lane)) is None:
            continue
        failed += 1
        if failed >= MOST_STARTS:
            _give_up(keeping, lane, why)


def _restart(keeping: Keeping, lane: KeptLane) -> str | None:
    """Starts a process for a lane that has none; None, or why it failed."""
    try:
        child = keeping.start(lane.number, lane.cores)
    except LaneLost as why:
        return why.why
    try:
        with keeping.roster.changing:
            keeping.roster.replay(child)
            taken = not lane.rests.is_set() and _swapped(lane, None, child)
    except Exception as why:
        _end(child)
        return str(why)
    if not taken:  # the lane was moved meanwhile and has a process, or rests
        _end(child)
        return None
    lane.restarts += 1
    keeping.tell()
    return None


def _give_up(keeping: Keeping, lane: KeptLane, why: str) -> None:
    """Returns once the lane is moved, which gives it a process, or rests."""
    with keeping.changed:
        lane.given_up = why
        keeping.changed.notify_all()
        keeping.changed.wait_for(lambda: lane.child is not None or lane.rests.is_set())
        lane.given_up = None


def _watch(lane: KeptLane) -> None:
    """Returns once the lane's process has ended, by itself or because its heart stood still."""
    while (child := lane.child) is not None:
        _until_still(lane, child)
        if lane.child is child:
            child.kill()
            if _swapped(lane, child, None):
                _release(child)
                return


def _until_still(lane: KeptLane, child: ChildProcess) -> None:
    """Until `child` has ended, beats no more, or serves the lane no more.

    Opens nothing, for there may be no descriptor left; that of a process which was released
    meanwhile may be another file's, and the lane then has another process.
    """
    poll = select.poll()
    poll.register(child.end_fd, select.POLLIN)
    pulse = Pulse(child)
    while lane.child is child and not poll.poll(LOOK_MS) and pulse.felt():
        pass


def _end(child: ChildProcess) -> None:
    """Lets a process end that has no lane, or no more."""
    child.leave()
    _release(child)


def _release(child: ChildProcess) -> None:
    """Gives its memory back once the launch that was in it has noticed."""
    with child.busy:
        child.release()
