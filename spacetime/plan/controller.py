"""Decides when a running plan no longer suits its load, and which move replaces it. Pure.

Fed once a period with what arrived and what was answered in time, by tenant; keeps an estimate of
every rate, asks a planner when the estimates have drifted, and gives a `Move` or says why not. No
clock, no thread, no device: the same object runs in virtual time (`dynamic`) and beside a session.

The estimate is an exponentially weighted mean of the rates seen. Only what surely is a rise counts
as one: two deviations of a Poisson count are taken off the mean and off the last period alone,
N - 2 sqrt(N) of N arrivals, so that a small tenant's noise moves nothing and a burst is seen within
one period.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan
from spacetime.plan.moves import Move, move
from spacetime.units import SECOND
from spacetime.workload.workload import Workload

Planning = Callable[[Workload], Plan]  # raises InfeasibleError


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """When to plan anew.

    `half_life_s`: after so long a rate seen counts half. `headroom`: plans are made for the
    estimates times this. `up`: plan when some tenant's estimate is above the planned one by this
    fraction; `down`: when one is below by this fraction, for `calm_s` on end, and only a plan of
    fewer devices is then taken: the gap between the two is the hysteresis. `dwell_s`: least time
    between the end of a move and the next for a lower load. `alarm`: plan when a tenant of at least
    `alarm_requests` a period had less than this attainment twice on end; `boost` multiplies its
    demand, once more each time, up to `most_boost`. `gpus`: devices there are in all, shadows
    counted (None: any number). Raises UnsupportedError naming the option.
    """

    half_life_s: float = 10.0
    headroom: float = 1.25
    up: float = 0.15
    down: float = 0.25
    calm_s: float = 30.0
    dwell_s: float = 30.0
    alarm: float = 0.95
    alarm_requests: int = 50
    boost: float = 1.15
    most_boost: float = 2.0
    gpus: int | None = None

    def __post_init__(self) -> None:
        for name in ("half_life_s", "up", "alarm_requests"):
            self._need(name, 0 < getattr(self, name) < math.inf, "above 0 and finite")
        for name in ("headroom", "boost", "most_boost"):
            self._need(name, 1 <= getattr(self, name) < math.inf, "at least 1 and finite")
        for name in ("calm_s", "dwell_s"):
            self._need(name, 0 <= getattr(self, name) < math.inf, "at least 0 and finite")
        self._need("down", 0 < self.down < 1, "above 0 and below 1")
        self._need("alarm", 0 <= self.alarm <= 1, "from 0 to 1")
        self._need("gpus", self.gpus is None or self.gpus >= 1, "at least 1")

    def _need(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UnsupportedError(f"{name}: must be {what}, got {getattr(self, name)}")


class Outcome(Enum):
    """What a decision comes to."""

    STAY = "stay"
    MOVE = "move"
    REFUSED = "refused"  # a plan was wanted, and there is none: said once, the old plan stays


class Cause(Enum):
    """What makes the controller plan anew."""

    RISE = "rise"
    FALL = "fall"
    MISSES = "misses"  # rates are as planned, answers come too late


@dataclass(frozen=True, slots=True)
class Decision:
    """`why` names the tenant and the figure; `move` belongs to MOVE alone.

    `cause` is None where no plan was asked for.
    """

    outcome: Outcome
    why: str
    move: Move | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class PeriodCounts:
    """A tenant's requests in one period: how many came, ended, and were answered in time.

    `ended` counts answers and drops; those still waiting are judged in a later period.
    """

    arrived: int
    ended: int = 0
    met: int = 0


class Controller:
    """Watches one plan. `planning` makes a plan for a workload with the rates asked for.

    Call `observe` at the end of every period, carry out the move it gives (`Move.steps`), and call
    `moved` when its last partition is closed; until then no other move is given.
    """

    def __init__(
        self, plan: Plan, workload: Workload, planning: Planning,
        options: ControllerOptions | None = None, *, now_ns: int = 0,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.options = options or ControllerOptions()
        self.rates = [tenant.rate_rps for tenant in workload.tenants]  # estimates, inputs a second
        self._workload = workload
        self._planning = planning
        self._planned = _served(plan, workload, self.options.headroom)  # estimates it was made for
        self._tried = list(self._planned)  # estimates of the last attempt, whatever came of it
        self._boosts = [1.0] * len(self.rates)
        self._poor: set[int] = set()  # tenants served badly in the last period
        self._moving = False
        self.begin(now_ns)

    def begin(self, now_ns: int) -> None:
        """The first period begins now."""
        self._now = self._quiet_from = self._low_from = now_ns

    def observe(self, now_ns: int, seen: Sequence[PeriodCounts]) -> Decision:
        """What to do at the end of a period, of which `seen` says what happened, by tenant.

        Raises ValueError if time does not pass, or for another number of tenants.
        """
        period_s = (now_ns - self._now) / SECOND
        if period_s <= 0 or len(seen) != len(self.rates):
            raise ValueError("observe: time must pass, and every tenant be counted")
        self._now = now_ns
        sure = self._estimate(period_s, seen)
        if self._moving:
            return Decision(Outcome.STAY, "a move is under way")
        alarmed = self._alarmed(seen)
        if why := self._too_high(sure):
            return self._replan(Cause.RISE, why, list(map(max, self.rates, sure)))
        if alarmed:
            for number in alarmed:
                boosted = self._boosts[number] * self.options.boost
                self._boosts[number] = min(boosted, self.options.most_boost)
            return self._replan(Cause.MISSES, self._alarm_text(alarmed, seen), self.rates)
        if why := self._too_low():
            return self._replan(Cause.FALL, why, self.rates)
        return Decision(Outcome.STAY, "rates are as planned")

    def moved(self, now_ns: int) -> None:
        """The move that was given last is complete."""
        self._moving = False
        self._poor = set()
        self._quiet_from = self._low_from = now_ns

    def _estimate(self, period_s: float, seen: Sequence[PeriodCounts]) -> list[float]:
        """Updates the estimates; gives, by tenant, what the rate surely is at least."""
        new = 1 - 0.5 ** (period_s / self.options.half_life_s)
        window_s = period_s * (2 - new) / new  # a mean over so long would vary as much
        sure = []
        for number, (tenant, each) in enumerate(zip(self._workload.tenants, seen, strict=True)):
            inputs = tenant.mean_request / period_s
            self.rates[number] += new * (each.arrived * inputs - self.rates[number])
            requests = self.rates[number] / tenant.mean_request * window_s
            mean = _surely(requests) / window_s * tenant.mean_request
            sure.append(max(mean, _surely(each.arrived) * inputs))
        return sure

    def _too_high(self, sure: Sequence[float]) -> str:
        known = zip(self._workload.tenants, sure, self._planned, self._tried, strict=True)
        for tenant, rate, planned, tried in known:
            if rate > max(planned, tried) * (1 + self.options.up):
                return f"{tenant.name}: {rate:.4g} req/s, planned for {planned:.4g}"
        return ""

    def _too_low(self) -> str:
        found = ""
        for tenant, rate, planned in zip(
            self._workload.tenants, self.rates, self._planned, strict=True
        ):
            if rate < planned * (1 - self.options.down):
                found = f"{tenant.name}: {rate:.4g} req/s, planned for {planned:.4g}"
                break
        if not found:
            self._low_from = self._now
        calm = self._now - self._low_from >= self.options.calm_s * SECOND
        rested = self._now - self._quiet_from >= self.options.dwell_s * SECOND
        return found if calm and rested else ""

    def _alarmed(self, seen: Sequence[PeriodCounts]) -> list[int]:
        """Tenants served badly in two periods on end, though their rates are as planned."""
        poor = {
            number
            for number, each in enumerate(seen)
            if each.ended >= self.options.alarm_requests
            and each.met < self.options.alarm * each.ended
        }
        twice, self._poor = poor & self._poor, poor
        return [n for n in sorted(twice) if self._boosts[n] < self.options.most_boost]

    def _alarm_text(self, alarmed: Sequence[int], seen: Sequence[PeriodCounts]) -> str:
        return ", ".join(
            f"{self._workload.tenants[n].name}: {seen[n].met / seen[n].ended:.1%} in time"
            for n in alarmed
        )

    def _replan(self, cause: Cause, why: str, rates: Sequence[float]) -> Decision:
        self._low_from = self._now  # where it fails: asked again after another calm, or another
        self._tried = list(rates)  # rise
        shrink = cause is Cause.FALL
        if shrink:
            self._boosts = [max(each / self.options.boost, 1.0) for each in self._boosts]
        try:
            plan = self._planning(self._wanted(rates))
        except InfeasibleError as error:
            return Decision(Outcome.REFUSED, f"{why}; {error}; the old plan stays", None, cause)
        if shrink and len(plan.gpus) >= len(self.plan.gpus):
            return Decision(Outcome.STAY, f"{why}; no plan of fewer devices", None, cause)
        found = move(self.plan, plan)
        needs, has = len(found.devices), self.options.gpus
        if has is not None and needs > has:
            too_many = f"{why}; the move needs {needs} devices, there are {has}"
            return Decision(Outcome.REFUSED, too_many, None, cause)
        self.plan, self._planned = found.new, list(rates)
        if not found.opens and not found.closes and not found.routes:
            return Decision(Outcome.STAY, f"{why}; the same plan", None, cause)
        self._moving = True
        return Decision(Outcome.MOVE, why, found, cause)

    def _wanted(self, rates: Sequence[float]) -> Workload:
        """The workload to plan for: estimates with headroom."""
        return self._workload.with_rates([
            rate * self.options.headroom * boost
            for rate, boost in zip(rates, self._boosts, strict=True)
        ])  # fmt: skip


def _surely(requests: float) -> float:
    """What an expected number of requests is at least, when so many came."""
    return max(requests - 2 * math.sqrt(requests), 0.0)


def _served(plan: Plan, workload: Workload, headroom: float) -> list[float]:
    """The estimates a plan was made for, had it been made with this headroom."""
    rates = dict.fromkeys((tenant.name for tenant in workload.tenants), 0.0)
    for _, _, each in plan:
        rates[each.tenant] += each.rate_rps
    return [rate / headroom for rate in rates.values()]
