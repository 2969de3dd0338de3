"""Load, faults at random instants, and the books that must balance after. Not a test module."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from proc_models import CRASHES, EXITS, RAISES
from torch import Tensor

import spacetime as st
from spacetime.errors import LaneLost

FAILURES = (st.ModelError, LaneLost)


@dataclass(slots=True)
class Asked:
    """One accepted request: what it carried, its future, and how often that came to an end."""

    tenant: str
    value: float
    future: Future[Tensor]
    ends: int = 0

    def note(self, _: Future[Tensor]) -> None:
        self.ends += 1  # one notifier calls all callbacks, or the thread that cancels

    def kind(self) -> str:
        """What became of it, in the report's words; wrong answers are found here."""
        if self.future.cancelled():
            return "cancelled"
        error = self.future.exception(0)
        if isinstance(error, st.DeadlineExceeded):
            return "deadline"
        if isinstance(error, st.ClosedError):
            return "closed"
        if error is not None:
            assert isinstance(error, FAILURES), repr(error)
            assert self.value != RAISES or isinstance(error, FAILURES)
            assert self.value in {RAISES, EXITS, CRASHES} or isinstance(error, LaneLost)
            return "failed"
        assert self.value not in {RAISES, EXITS, CRASHES}
        assert torch.equal(self.future.result(), torch.full((1, 6), self.value + 1))
        return "completed"


@dataclass
class Books:
    """Every request that was offered, to be balanced with the session's own report."""

    asked: list[Asked] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def ask(self, tenant: st.Tenant, value: float) -> Asked | None:
        try:
            future = tenant.submit(torch.full((1, 6), value))
        except st.QueueFull:
            self.refused[tenant.name] += 1
            return None
        one = Asked(tenant.name, value, future)
        self.asked.append(one)
        future.add_done_callback(one.note)
        return one

    def balance(self, session: st.Session) -> Counter[str]:
        """Every accepted request has ended exactly once, and the report agrees about each kind.

        A request that was cancelled while it ran is its caller's `cancelled` and ends in the
        report as what its launch gave. The session must be closed.
        """
        left = wait([one.future for one in self.asked], 0).not_done
        assert not left, f"{len(left)} accepted requests were never answered"
        assert Counter(one.ends for one in self.asked) == {1: len(self.asked)}
        seen: Counter[tuple[str, str]] = Counter((one.tenant, one.kind()) for one in self.asked)
        for name, row in session.report()["tenants"].items():
            told = Counter(row["dropped"]) + Counter(completed=row["completed"])
            assert row["offered"] == sum(told.values()), (name, row)
            mine = Counter({kind: n for (tenant, kind), n in seen.items() if tenant == name})
            mine["queue-full"] = self.refused[name]
            assert row["offered"] == sum(mine.values()), (name, row, mine)
            late = mine["cancelled"] - told["cancelled"]  # cancelled while they ran
            surplus = {kind: told[kind] - mine[kind] for kind in {*told, *mine} - {"cancelled"}}
            assert late >= 0, (name, row, mine)
            assert all(extra >= 0 for extra in surplus.values()), (name, surplus)
            assert sum(surplus.values()) == late, (name, surplus)
        return Counter(one.kind() for one in self.asked) + Counter(refused=self.refused.total())


class Every(threading.Thread):
    """Calls `once` at random instants, so often a second on average, until it is stopped."""

    def __init__(self, per_s: float, once: Callable[[random.Random], None], seed: int) -> None:
        super().__init__(daemon=True)
        self._per_s, self._once, self._random = per_s, once, random.Random(seed)
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._random.expovariate(self._per_s)):
                self._once(self._random)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        if self.error is not None:
            raise self.error


def bursts(books: Books, tenants: Sequence[st.Tenant]) -> Callable[[random.Random], None]:
    """Some requests of each tenant at once; one in 50 makes its model raise."""

    def once(chance: random.Random) -> None:
        for tenant in tenants:
            for _ in range(chance.randrange(12)):
                books.ask(tenant, RAISES if chance.random() < 0.02 else float(chance.randrange(99)))

    return once


def cancel_storm(books: Books, tenant: st.Tenant) -> Callable[[random.Random], None]:
    """Many requests at once, and all of them given up in random order."""

    def once(chance: random.Random) -> None:
        made = [one for _ in range(40) if (one := books.ask(tenant, 1.0)) is not None]
        chance.shuffle(made)
        for one in made:
            one.future.cancel()

    return once


def trouble(
    books: Books, tenant: st.Tenant, pids: Callable[[], Sequence[int | None]], did: Counter[str]
) -> Callable[[random.Random], None]:
    """A lane's process is killed or stopped, or asked what ends it; counted in `did`."""

    def once(chance: random.Random) -> None:
        # Each kind in turn, so that a short run has all of them; whom and when is random.
        kind = ("SIGKILL", "SIGSTOP", "exit", "segfault")[sum(did.values()) % 4]
        alive = [pid for pid in pids() if pid is not None]
        if kind in {"exit", "segfault"}:
            books.ask(tenant, EXITS if kind == "exit" else CRASHES)
        elif alive:
            with suppress(ProcessLookupError):  # it died of itself just now
                os.kill(chance.choice(alive), signal.Signals[kind])
        else:
            return
        did[kind] += 1

    return once


def open_session(**options: Any) -> st.Session:
    """Two one-core lanes where there are two cores, a process each."""
    return st.Session("cpu", isolation="process", lanes=min(2, os.cpu_count() or 1), **options)
