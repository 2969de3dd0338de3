"""An open-loop load: every request leaves at its own absolute time, whatever became of the last.

One thread sends. Latency counts from when a request was *due*, so a slow sender or a blocked
submit cannot hide a wait. The same schedule may be driven against any number of sessions.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from spacetime.errors import DeadlineExceeded, QueueFull
from spacetime.interruption import Interruption
from spacetime.units import SECOND
from spacetime.workload.workload import Arrival

LEAD_NS = 20_000_000  # between building the loop and the first request


@dataclass(frozen=True, slots=True)
class Target:
    """One tenant's side of the load: how to submit, and the requests to take turns with."""

    submit: Callable[[Any], Future[Any]]
    requests: Sequence[Any]


@dataclass(slots=True)
class Sent:
    """What became of one request; the request was `requests[item]` of target `tenant`."""

    tenant: int
    item: int
    due_ns: int  # after the start
    late_ns: int  # how much later than due it was submitted
    latency_ns: int | None = None  # from due to answered; None where it was dropped
    answer: Any = None
    dropped: str | None = None  # why there is no answer
    error: BaseException | None = None  # of one that failed

    def _ended(self, future: Future[Any], latency_ns: int, *, keep: bool) -> None:
        if future.cancelled():
            self.dropped = "cancelled"
            return
        error = future.exception()
        if error is None:
            self.latency_ns = latency_ns
            self.answer = future.result() if keep else None
            return
        if isinstance(error, DeadlineExceeded):
            self.dropped = "deadline"
        else:
            self.dropped, self.error = "failed", error


class _Open:
    """How many requests have no answer yet; waits until what came of each has been noted."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def more(self) -> None:
        with self._changed:
            self._count += 1

    def less(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


def drive(
    targets: Sequence[Target],
    schedule: Iterable[Arrival],
    *,
    into: list[Sent] | None = None,
    keep: bool = True,
    interruption: Interruption | None = None,
) -> list[Sent]:
    """Send the schedule and wait for every answer; one entry a request, in order of due time.

    Requests that were refused or dropped say so; any other failure is raised in the end. `into` is
    filled while it runs, so that what an interrupted caller has sent is known. Without `keep`
    answers are let go, and any other failure is a drop for reason `failed`. An `interruption` is
    taken while it waits for the next moment to send, so that every request sent is in `into`.
    """
    window = nullcontext if interruption is None else interruption.window
    turns = [0] * len(targets)
    sent: list[Sent] = [] if into is None else into
    open_ = _Open()
    with _no_collector_pauses():
        start_ns = time.monotonic_ns() + LEAD_NS
        for due_ns, tenant in schedule:
            target = targets[tenant]
            item = turns[tenant] % len(target.requests)
            turns[tenant] += 1
            with window():
                now_ns = _wait_until(start_ns + due_ns)
            one = Sent(tenant, item, due_ns, now_ns - start_ns - due_ns)
            sent.append(one)
            _submit(target, one, start_ns, open_, keep=keep)
        open_.wait()
    if keep:
        for one in sent:
            if one.error is not None:
                raise one.error
    return sent


def _submit(target: Target, one: Sent, start_ns: int, open_: _Open, *, keep: bool) -> None:
    def stamp(future: Future[Any]) -> None:
        one._ended(future, time.monotonic_ns() - start_ns - one.due_ns, keep=keep)
        open_.less()

    try:
        future = target.submit(target.requests[one.item])
    except QueueFull:
        one.dropped = "queue-full"
        return
    open_.more()
    future.add_done_callback(stamp)


def _wait_until(moment_ns: int) -> int:
    """Sleep until a moment and return the time it is; at once if the moment has passed."""
    while (now_ns := time.monotonic_ns()) < moment_ns:
        time.sleep((moment_ns - now_ns) / SECOND)
    return now_ns


@contextmanager
def _no_collector_pauses() -> Iterator[None]:
    """Keep Python's cycle collector out: its pauses grow with the answers held for checking."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
