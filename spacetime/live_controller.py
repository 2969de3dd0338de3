"""The controller beside a running session: a thread that counts, asks it, and applies its moves.

All judgement is the controller's, which is pure and the same in virtual time; here are the clock,
the counters and the session. What it decided and what came of it is kept, in order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from spacetime import devices
from spacetime.controller import Controller, ControllerOptions, Outcome, Seen
from spacetime.errors import ClosedError, SpacetimeError, UnsupportedError
from spacetime.plan import Plan, PlanOptions
from spacetime.plan import planner as make
from spacetime.planned_session import Moved, PlannedSession
from spacetime.profile import Profiles
from spacetime.units import SECOND
from spacetime.workload import Workload

PLANNING_SECONDS = 1.0  # that `exact` may search: the load does not wait


@dataclass(frozen=True, slots=True)
class Event:
    """What the controller did at `at_ns` (monotonic), and why; `moved` where the session moved."""

    at_ns: int
    outcome: str  # "move", or "refused"
    why: str
    plan_ms: float
    moved: Moved | None = None


class LiveController:
    """Moves a session to the plan its load needs; use it with `with`, or start() and stop().

    period_s: how often the session is asked what arrived. planning: makes the plan for a workload
    at the rates seen; None is the planner `spacetime` on one device. Raises UnsupportedError for a
    period that is none.
    """

    def __init__(
        self,
        session: PlannedSession,
        *,
        options: ControllerOptions | None = None,
        planning: Callable[[Workload], Plan] | None = None,
        period_s: float = 1.0,
    ) -> None:
        if not 0.01 <= period_s <= 3600:
            raise UnsupportedError(f"period_s: must be from 0.01 to 3600, got {period_s}")
        self.events: list[Event] = []
        self._session = session
        self._period_s = period_s
        self._controller = Controller(
            session.plan, session.workload,
            planning or planning_on_one(session.profiles, session.plan.device, session.options),
            options, now_ns=time.monotonic_ns(),
        )  # fmt: skip
        self._last = self._counts()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="spacetime-controller", daemon=True
        )
        self.failure: BaseException | None = None

    @property
    def rates(self) -> dict[str, float]:
        """Inputs a second that each tenant is estimated to get."""
        names = [tenant.name for tenant in self._session.workload.tenants]
        return dict(zip(names, self._controller.rates, strict=True))

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, after the move that is under way. Raises what it failed with."""
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _watch(self) -> None:
        try:
            while not self._stop.wait(self._period_s):
                self.step(time.monotonic_ns())
        except ClosedError:
            pass
        except BaseException as error:
            self.failure = error

    def step(self, now_ns: int) -> None:
        """One period ends: counts, decides, and moves the session where that is decided."""
        counts = self._counts()
        seen = [
            Seen(*(after - before for before, after in zip(old, new, strict=True)))
            for old, new in zip(self._last, counts, strict=True)
        ]
        self._last = counts
        began = time.monotonic_ns()
        decision = self._controller.observe(now_ns, seen)
        plan_ms = (time.monotonic_ns() - began) / 1e6
        if decision.outcome is Outcome.REFUSED:
            self.events.append(Event(now_ns, "refused", decision.why, plan_ms))
        if decision.move is not None:
            self._move(now_ns, decision.move.new, decision.why, plan_ms)

    def _move(self, now_ns: int, plan: Plan, why: str, plan_ms: float) -> None:
        session = self._session
        try:
            moved = session.apply(plan, session.workload.with_rates(_rates(plan, session.workload)))
        except ClosedError:
            raise
        except SpacetimeError as error:  # the session is as it was, and so is the controller
            self._controller.plan = session.plan
            self.events.append(Event(now_ns, "refused", f"{why}; {error}", plan_ms))
        else:
            self.events.append(Event(now_ns, "move", why, plan_ms, moved))
        self._controller.moved(time.monotonic_ns())

    def _counts(self) -> list[tuple[int, int, int]]:
        """By tenant since the session opened: came (the refused too), ended, answered in time."""
        by_name = self._session.counts()
        return [by_name[tenant.name] for tenant in self._session.workload.tenants]

    def __enter__(self) -> LiveController:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()


def planning_on_one(
    profiles: Profiles, device: str, options: PlanOptions
) -> Callable[[Workload], Plan]:
    """The planner `spacetime` on one device of this name, quick enough to run beside a load."""
    maker = make("spacetime", seconds=PLANNING_SECONDS)
    facts, limits = devices.device(device), replace(options, gpus=1)
    return lambda workload: maker.plan(workload, profiles, facts, limits)


def _rates(plan: Plan, workload: Workload) -> list[float]:
    """What the plan serves of each tenant."""
    served = dict.fromkeys((tenant.name for tenant in workload.tenants), 0.0)
    for _, _, each in plan:
        served[each.tenant] += each.rate_rps
    return [*served.values()]


def summary(events: list[Event], start_ns: int) -> list[dict[str, object]]:
    """The events as a report has them; times in seconds since `start_ns`."""
    return [
        {
            "at_s": (event.at_ns - start_ns) / SECOND, "outcome": event.outcome, "why": event.why,
            "plan_ms": event.plan_ms,
        }
        | ({} if event.moved is None else {
            "opened": event.moved.opened, "kept": event.moved.kept, "drained": event.moved.drained,
            "prepare_ms": event.moved.prepare_ms, "switch_ms": event.moved.switch_ms,
            "drain_ms": event.moved.drain_ms,
        })
        for event in events
    ]  # fmt: skip
