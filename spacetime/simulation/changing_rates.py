"""A plan under rates that change, in virtual time: kept, moved by a controller, or by an oracle.

What a move costs is an option. New partitions serve `start_ms` after they were asked for: the
gpulet paper (ATC'22) measured 10 to 15 s for a process of MPS, a rung of the `sm` ladder takes
microseconds. Until the last old partition has drained, the devices of both plans are in use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan
from spacetime.plan.controller import Decision, Outcome, PeriodCounts, Planning
from spacetime.plan.deployment import own_policy
from spacetime.plan.moves import Move, move
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.simulation.staged_plan import StagedPlan
from spacetime.units import SECOND, ns_from_ms
from spacetime.workload.rate_trace import RateTrace
from spacetime.workload.workload import Workload

POLL_NS = SECOND // 10  # how often draining partitions are looked at


class Decider(Protocol):
    """What looks at a plan once a period: a `controller.Controller`, or one of those below."""

    def observe(self, now_ns: int, seen: Sequence[PeriodCounts]) -> Decision:
        """The decision at the end of a period; `seen` has one entry for each tenant."""
        ...

    def moved(self, now_ns: int) -> None:
        """Told when the move that was given last is complete."""
        ...


class Keep:
    """Keeps the plan, whatever happens."""

    def observe(self, now_ns: int, seen: Sequence[PeriodCounts]) -> Decision:
        """Always the decision to stay."""
        return Decision(Outcome.STAY, "the plan is kept")

    def moved(self, now_ns: int) -> None:
        """Never called: no move was given."""


class Oracle:
    """A decider that knows the rates of the next period, and plans for exactly these.

    `planning` makes a plan for a workload. For rates that it cannot plan for, the plan in force
    stays.
    """

    def __init__(
        self, plan: Plan, workload: Workload, planning: Planning, trace: RateTrace, period_ns: int
    ) -> None:
        self._plan, self._workload, self._planning = plan, workload, planning
        self._trace, self._period_ns = trace, period_ns

    def observe(self, now_ns: int, seen: Sequence[PeriodCounts]) -> Decision:
        """The plan for the highest rates of the period to come."""
        rates = self._trace.highest(now_ns, now_ns + self._period_ns)
        try:
            plan = self._planning(self._workload.with_rates(rates))
        except InfeasibleError as error:
            return Decision(Outcome.REFUSED, str(error))
        next_move = move(self._plan, plan)
        self._plan = next_move.new
        return Decision(Outcome.MOVE, "the next period's rates", next_move)

    def moved(self, now_ns: int) -> None:
        """Nothing to do: the next plan depends on the rates to come alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicOptions:
    """How often the plan is looked at, and what a move costs.

    The decider is asked every `period_s` seconds. Opened partitions serve after `start_ms`. With
    `free` a move takes no time, and old partitions that still drain occupy no device. Without a
    `policy` the first plan's own runs. Raises UnsupportedError naming the option.
    """

    period_s: float = 5.0
    start_ms: float = 12_000.0
    free: bool = False
    policy: Policy | None = None
    seed: int | None = None  # None: the workload's

    def __post_init__(self) -> None:
        if not 0.001 <= self.period_s < math.inf:
            raise UnsupportedError(f"period_s: must be at least 0.001, got {self.period_s}")
        if not 0 <= self.start_ms < math.inf:
            raise UnsupportedError(f"start_ms: must be 0 or positive, got {self.start_ms}")


@dataclass(frozen=True, slots=True)
class MoveMade:
    """When a move was decided, when its routes changed, when it was complete, and what it cost.

    `routed_ns` and `closed_ns` are None where the trace ended before. `devices` were in use during
    the move, `gpus` after it. `ended` counts the requests that ended between decision and
    completion, `missed` those of them that were not answered in time.
    """

    why: str
    decided_ns: int
    routed_ns: int | None
    closed_ns: int | None
    devices: int
    gpus: int
    ended: int
    missed: int


@dataclass(frozen=True, slots=True)
class Period:
    """Devices in use at the end of a period, and what happened in it over all tenants."""

    end_ns: int
    devices: int
    arrived: int
    ended: int
    met: int


@dataclass(frozen=True, slots=True)
class DynamicRun:
    """What became of a plan and of the moves that replaced it.

    `tenants` has (offered, answered in time) of each tenant. `device_s`: devices in use, summed
    over time, in device-seconds. `short_s`: seconds in which some tenant's rate was above what the
    plan in force has room for. `refused` has the time, in ns, and the reason of each refused plan.
    """

    seconds: float
    tenants: tuple[tuple[int, int], ...]
    device_s: float
    short_s: float
    moves: tuple[MoveMade, ...]
    refused: tuple[tuple[int, str], ...]
    periods: tuple[Period, ...]

    @property
    def attainment(self) -> float:
        """Fraction of all requests answered in time."""
        offered = sum(offered for offered, _ in self.tenants)
        return sum(met for _, met in self.tenants) / offered if offered else 1.0

    @property
    def worst_attainment(self) -> float:
        """The attainment of the tenant that has the least; 1 where nobody asked."""
        return min((met / offered for offered, met in self.tenants if offered), default=1.0)


def simulate_dynamic(
    plan: Plan, workload: Workload, profiles: Profiles, trace: RateTrace, *,
    decider: Decider, options: DynamicOptions | None = None,
) -> DynamicRun:  # fmt: skip
    """Runs a plan, and the plans that the decider moves to, to the end of the trace.

    The arrivals are the same whatever is decided, so that runs can be compared. Raises
    UnsupportedError for a trace of other tenants than the workload's, and PlanError and
    UnsupportedError as `staged_plan.StagedPlan` does.
    """
    options = options or DynamicOptions()
    if len(trace.rates[0]) != len(workload.tenants):
        raise UnsupportedError(
            f"rates: are of {len(trace.rates[0])} tenants, the workload has {len(workload.tenants)}"
        )
    staged = StagedPlan(
        plan, workload, profiles, options.policy or own_policy(plan, workload),
        horizon_ns=trace.end_ns, seed=workload.seed if options.seed is None else options.seed,
    )  # fmt: skip
    return _Loop(staged, workload, trace, decider, options).run()


@dataclass(slots=True)
class _Under:
    """A move under way."""

    move: Move
    why: str
    decided_ns: int
    ready_ns: int
    before: tuple[int, int]  # requests ended and missed when it was decided
    routed: bool = False


@dataclass
class _Loop:
    """One run: the simulation is advanced from one instant at which something is due to the next.

    Times are in ns of virtual time; `now` is how far the simulation has run.
    """

    staged: StagedPlan
    workload: Workload
    trace: RateTrace
    decider: Decider
    options: DynamicOptions
    now: int = 0
    under: _Under | None = None
    device_ns: int = 0
    short_ns: int = 0
    moves: list[MoveMade] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    periods: list[Period] = field(default_factory=list)
    counts: tuple[tuple[int, int, int, int], ...] = ()

    def run(self) -> DynamicRun:
        self.counts = self.staged.run.counts()
        period = round(self.options.period_s * SECOND)
        next_step, next_look = 0, period  # rates hold from the start, a look needs a whole period
        while self.now < self.trace.end_ns:
            # Rates change before time passes, so that a step's arrivals come at the step's rates.
            if self.now == next_step:
                self.set_rates()
                next_step += self.trace.step_ns
            self.pass_time(min(next_step, next_look, self.next_stage(), self.trace.end_ns))
            # Before the look: a decider gives no move while it believes another to be under way, so
            # it is told first of one that completes at this instant.
            self.go_on()
            if self.now == next_look:
                next_look += period
                self.look()
        # The move is noted at the trace's end; requests that wait then are still answered, below.
        if self.under is not None:
            self.note(None)
        self.staged.run.run_until()
        return DynamicRun(
            self.now / SECOND,
            tuple((offered, met) for offered, _, met, _ in self.staged.run.counts()),
            self.device_ns / SECOND, self.short_ns / SECOND,
            tuple(self.moves), tuple(self.refused), tuple(self.periods),
        )  # fmt: skip

    def set_rates(self) -> None:
        for number, rate in enumerate(self.trace.at(self.now)):
            self.staged.run.set_rate(number, rate)

    def next_stage(self) -> int:
        """The time, in ns, at which the move under way may go on; the end where there is none."""
        if self.under is None:
            return self.trace.end_ns
        return self.now + POLL_NS if self.under.routed else self.under.ready_ns

    def pass_time(self, until: int) -> None:
        self.device_ns += self.devices() * (until - self.now)
        if self.short():
            self.short_ns += until - self.now
        self.staged.run.run_until(until)
        self.now = until

    def devices(self) -> int:
        return len(self.staged.plan.gpus if self.under is None else self.under.move.devices)

    def short(self) -> bool:
        room = 1 + (self.staged.plan.headroom or 0)
        served = dict.fromkeys((tenant.name for tenant in self.workload.tenants), 0.0)
        for _, _, assignment in self.staged.plan:
            served[assignment.tenant] += assignment.rate_rps * room
        now = zip(self.trace.at(self.now), served.values(), strict=True)
        return any(rate > most for rate, most in now)

    def look(self) -> None:
        counts = self.staged.run.counts()
        period = [
            PeriodCounts(new[0] - old[0], sum(new[1::2]) - sum(old[1::2]), new[2] - old[2])
            for new, old in zip(counts, self.counts, strict=True)
        ]
        self.counts = counts
        self.periods.append(Period(
            self.now, self.devices(), sum(tenant.arrived for tenant in period),
            sum(tenant.ended for tenant in period), sum(tenant.met for tenant in period),
        ))  # fmt: skip
        decision = self.decider.observe(self.now, period)
        if decision.outcome is Outcome.REFUSED:
            self.refused.append((self.now, decision.why))
        if decision.move is not None:
            ready = self.now + (0 if self.options.free else ns_from_ms(self.options.start_ms))
            self.under = _Under(decision.move, decision.why, self.now, ready, self.ended())
            self.staged.open(decision.move)
            self.go_on()

    def go_on(self) -> None:
        """Takes the move under way as far as it can go now: to its routes, and to its end."""
        drained = self.staged.drained()
        under = self.under
        if under is None or self.now < under.ready_ns:
            return
        if not under.routed:
            self.staged.route(under.move)
            under.routed = True
            drained = self.staged.drained()
        if drained or self.options.free:
            self.note(self.now)
            self.under = None
            self.decider.moved(self.now)

    def ended(self) -> tuple[int, int]:
        counts = self.staged.run.counts()
        ended = sum(completed + dropped for _, completed, _, dropped in counts)
        return ended, ended - sum(met for _, _, met, _ in counts)

    def note(self, closed_ns: int | None) -> None:
        under, (ended, missed) = self.under, self.ended()
        assert under is not None
        self.moves.append(MoveMade(
            under.why, under.decided_ns, under.ready_ns if under.routed else None, closed_ns,
            len(under.move.devices), len(under.move.new.gpus),
            ended - under.before[0], missed - under.before[1],
        ))  # fmt: skip
