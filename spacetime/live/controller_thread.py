"""The controller beside a running session: a thread that counts, asks it, and applies its moves.

The pure controller decides, as it does in virtual time; here are the clock, the counters and the
session. What was decided and what came of each decision is kept, in order.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from spacetime.devices import facts as devices
from spacetime.errors import ClosedError, SpacetimeError, UnsupportedError
from spacetime.live.planned_session import Moved, PlannedSession
from spacetime.plan import Plan, PlanOptions
from spacetime.plan.controller import Cause, Controller, ControllerOptions, Outcome, PeriodCounts
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.units import SECOND
from spacetime.workload.workload import Workload

PLANNING_NODES = 100  # of the search tree that a plan may take: the load does not wait for it
LANES = ("opened", "kept", "drained")  # fields of Moved
STEPS = ("prepare", "switch", "drain")  # fields of Moved, without `_ms`
MOST_EVENTS = 1000  # the latest are kept


@dataclass(frozen=True, slots=True)
class Event:
    """What the controller did at `at_ns` (monotonic), and why; `moved` where the session moved."""

    at_ns: int
    outcome: str  # "move", "refused", or "failed" where the controller itself ended
    why: str
    plan_ms: float
    moved: Moved | None = None


@dataclass(slots=True)
class Tally:
    """Sums over a controller's life, which only grow."""

    replans: Counter[tuple[str, str]] = field(default_factory=Counter)  # by outcome and cause
    lanes: Counter[str] = field(default_factory=Counter)  # by what a move did to them
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by step
    last_s: float | None = None  # when a plan was last asked for, in seconds since 1970


class LiveController:
    """Moves a session to the plan its load needs; use it with `with`, or start() and stop().

    period_s: how often the session is asked what arrived, in seconds. planning: makes the plan for
    a workload at the rates seen; None is the planner `spacetime` on one device. tell: is called
    with every event. Tenants may leave the session and come back meanwhile: while one is away,
    nothing arrives for it. Raises UnsupportedError for a period below 0.01 or above 3600 seconds.
    """

    def __init__(
        self,
        session: PlannedSession,
        *,
        options: ControllerOptions | None = None,
        planning: Callable[[Workload], Plan] | None = None,
        period_s: float = 1.0,
        tell: Callable[[Event], object] = lambda event: None,
    ) -> None:
        if not 0.01 <= period_s <= 3600:
            raise UnsupportedError(f"period_s: must be from 0.01 to 3600, got {period_s}")
        self.events: list[Event] = []
        self.tally = Tally()
        self._tell = tell
        self._session = session
        self._period_s = period_s
        self._controller = Controller(
            session.plan,
            session.workload,
            planning or planning_on_one(session.profiles, session.plan.device, session.options),
            options,
            now_ns=time.monotonic_ns(),
        )
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

    @property
    def planned(self) -> dict[str, float]:
        """Inputs a second of each tenant that the plan in force serves."""
        names = [tenant.name for tenant in self._session.workload.tenants]
        return dict(zip(names, _rates(self._session.plan, self._session.workload), strict=True))

    @property
    def units(self) -> int:
        """Cores or SMs that the plan in force uses."""
        return self._session.planned_units

    def start(self) -> None:
        """Starts the thread. Requests that came before belong to no period."""
        self._last = self._counts()
        self._controller.begin(time.monotonic_ns())
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after the move that is under way. Raises what the thread failed with."""
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
            why = f"{type(error).__name__}: {error}; the plan in force stays"
            self._note(Event(time.monotonic_ns(), "failed", why, 0.0))

    def step(self, now_ns: int) -> None:
        """Ends a period: counts what came, asks the controller, and moves the session where the
        controller says so."""
        seen, self._last = self._seen()
        began = time.monotonic_ns()
        decision = self._controller.observe(now_ns, seen)
        plan_ms = (time.monotonic_ns() - began) / 1e6
        outcome, why = decision.outcome, decision.why
        moved = None
        if decision.move is not None:
            outcome, why, moved = self._move(decision.move.new, why)
        if decision.cause is not None:
            self._count(outcome, decision.cause, plan_ms, moved)
        if outcome is not Outcome.STAY:
            self._note(Event(now_ns, outcome.value, why, plan_ms, moved))

    def _move(self, plan: Plan, why: str) -> tuple[Outcome, str, Moved | None]:
        """What came of moving the session to `plan`."""
        session = self._session
        try:
            moved = session.apply(plan, session.workload.with_rates(_rates(plan, session.workload)))
        except ClosedError:
            raise
        except SpacetimeError as error:  # the session is as it was, and so is the controller
            self._controller.plan = session.plan
            return Outcome.REFUSED, f"{why}; {error}", None
        finally:
            self._controller.moved(time.monotonic_ns())
        return Outcome.MOVE, why, moved

    def _count(self, outcome: Outcome, cause: Cause, plan_ms: float, moved: Moved | None) -> None:
        tally = self.tally
        tally.replans[outcome.value, cause.value] += 1
        tally.last_s = time.time()
        tally.seconds["plan"] += plan_ms / 1e3
        if moved is not None:
            for what in LANES:
                tally.lanes[what] += getattr(moved, what)
            for what in STEPS:
                tally.seconds[what] += getattr(moved, f"{what}_ms") / 1e3

    def _note(self, event: Event) -> None:
        self.events.append(event)
        del self.events[:-MOST_EVENTS]
        self._tell(event)

    def _seen(self) -> tuple[list[PeriodCounts], list[tuple[int, int, int]]]:
        """What became of each tenant's requests since the last period, and the counts until now."""
        counts = self._counts()
        seen = []
        for before, after in zip(self._last, counts, strict=True):
            anew = any(new < old for old, new in zip(before, after, strict=True))
            start = (0, 0, 0) if anew else before  # it has left meanwhile, and come back
            seen.append(PeriodCounts(*(new - old for old, new in zip(start, after, strict=True))))
        return seen, counts

    def _counts(self) -> list[tuple[int, int, int]]:
        """PlannedSession.counts() in the workload's order of tenants; zeros for one that is
        away."""
        by_name = self._session.counts()
        return [by_name.get(tenant.name, (0, 0, 0)) for tenant in self._session.workload.tenants]

    def __enter__(self) -> LiveController:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def planning_on_one(
    profiles: Profiles, device: str, options: PlanOptions
) -> Callable[[Workload], Plan]:
    """The planner `spacetime` on one device of this name, quick enough to run beside a load."""
    maker = planner("spacetime", nodes=PLANNING_NODES)
    facts, limits = devices.device(device), replace(options, gpus=1)
    return lambda workload: maker.plan(workload, profiles, facts, limits)


def _rates(plan: Plan, workload: Workload) -> list[float]:
    """Inputs a second of each tenant that the plan serves, in the order of the workload."""
    served = dict.fromkeys((tenant.name for tenant in workload.tenants), 0.0)
    for _, _, assignment in plan:
        served[assignment.tenant] += assignment.rate_rps
    return [*served.values()]


def summary(events: list[Event], start_ns: int) -> list[dict[str, object]]:
    """The events as a report has them; times in seconds since `start_ns`."""
    return [
        {
            "at_s": (event.at_ns - start_ns) / SECOND,
            "outcome": event.outcome,
            "why": event.why,
            "plan_ms": event.plan_ms,
        }
        | (
            {}
            if event.moved is None
            else {
                "opened": event.moved.opened,
                "kept": event.moved.kept,
                "drained": event.moved.drained,
                "prepare_ms": event.moved.prepare_ms,
                "switch_ms": event.moved.switch_ms,
                "drain_ms": event.moved.drain_ms,
            }
        )
        for event in events
    ]
