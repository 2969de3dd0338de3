"""Plans that keep their objectives at random arrivals: proven by simulation, not by a rule.

A planner's bounds hold for steady arrivals; what randomness adds is left to a utilisation ceiling.
Instead of guessing the ceiling, plans are made from a high one downwards, each as it is and with
calmer batches. The one of fewest devices that the simulator sees keep every tenant's objective is
taken; ceilings go down only while fewer devices than that are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, Planner, PlanOptions, calm
from spacetime.plan.plan import Reason
from spacetime.planners.gate import awake, seated, within_reach
from spacetime.planners.spacetime import SpaceTime
from spacetime.profiles.profile import Profiles
from spacetime.simulation.fixed_plan import DURATION_NS, SimOptions, simulate_plan
from spacetime.units import SECOND
from spacetime.workload.workload import Workload

CEILINGS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3)
COARSE = (0.8, 0.65, 0.5, 0.3)  # where nobody asked to know whether it can be had
VAIN = 2  # ceilings on end that serve the worst tenant no better: lower ones will not either
TARGET = 0.99
MOST_REQUESTS = 10_000_000  # simulated of one plan: where there are more, the time is cut
LEAST_NS = SECOND  # but not below this
FIRST_LOOK = 10  # a plan that misses clearly in a tenth of the time is not looked at further

Attained = Callable[[Plan], Mapping[str, float]]  # by tenant: fraction answered in time


@dataclass(frozen=True, slots=True)
class Proven:
    """A plan, the ceiling it was made under, and each tenant's simulated attainment.

    Idle tenants, of whom nothing came, have none.
    """

    plan: Plan
    ceiling: float
    attained: Mapping[str, float]

    @property
    def worst(self) -> tuple[float, str] | None:
        """The tenant served worst and its attainment; None where nobody asks."""
        return min(((part, name) for name, part in self.attained.items()), default=None)


def proven(
    planner: Planner,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
    *,
    target: float,
    attained: Attained | None = None,
) -> Proven:
    """The plan of the highest ceiling, at most the options', that keeps `target` for every tenant.

    `attained` None simulates the workload's arrivals, see `draws`. Raises InfeasibleError: the
    planner's own, or with bound `attainment` naming the tenant served worst.
    """
    found = best_of(
        planner,
        workload,
        profiles,
        device,
        options,
        target=target,
        attained=attained,
        ceilings=CEILINGS,
    )
    worst = found.worst
    if worst is None or worst[0] >= target:
        return found
    raise InfeasibleError(
        worst[1],
        "attainment",
        f"at best {worst[0]:.2%} of its requests are in time at random arrivals, {target:.2%} are "
        "asked; allow a longer objective, or smaller batches in its profile",
    )


def best_of(
    planner: Planner,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
    *,
    target: float = TARGET,
    attained: Attained | None = None,
    ceilings: Sequence[float] = COARSE,
) -> Proven:
    """As `proven`; where no plan keeps `target`, the one whose worst tenant is served best.

    Raises InfeasibleError: the planner's own.
    """
    search = _Search(
        planner,
        workload,
        profiles,
        device,
        attained or simulated(workload, profiles, target),
        target,
    )
    vain, worst = 0, -1.0
    for ceiling in (options.max_utilisation, *(c for c in ceilings if c < options.max_utilisation)):
        search.under(ceiling, replace(options, max_utilisation=ceiling))
        now = search.best.worst[0] if search.best and search.best.worst else 1.0
        vain, worst = (0, now) if now > worst else (vain + 1, worst)
        if search.over or (ceilings is COARSE and not search.keeps and vain >= VAIN):
            break
    assert search.best is not None, "a plan, or why there is none"
    return search.best


@dataclass(slots=True)
class _Search:
    planner: Planner
    workload: Workload
    profiles: Profiles
    device: DeviceFacts
    judge: Attained
    target: float
    best: Proven | None = None
    keeps: bool = False
    over: bool = False
    fewest: int = 0  # devices of the first plan: what a lower ceiling cannot go below
    seen: set[Plan] = field(default_factory=set)

    def under(self, ceiling: float, options: PlanOptions) -> None:
        """Judges what the planner offers under a ceiling, fewest devices first."""
        try:
            plans = _plans(self.planner, self.workload, self.profiles, self.device, options)
        except InfeasibleError:
            if self.best is None:
                raise
            plans = []
        self.fewest = self.fewest or min(len(plan.gpus) for plan in plans)
        fewer = [
            plan
            for plan in plans
            if not self.keeps or (self.best and len(plan.gpus) < len(self.best.plan.gpus))
        ]
        for plan in fewer:
            if self._takes(plan, ceiling, options):
                break
        enough = self.keeps and self.best and len(self.best.plan.gpus) <= self.fewest
        self.over = bool(enough) or not fewer or not self.workload.tenants

    def _takes(self, plan: Plan, ceiling: float, options: PlanOptions) -> bool:
        """Whether the plan, or with calmer batches, keeps the target; the best is kept in mind."""
        for candidate in (plan, calm(plan, self.workload, self.profiles, options)):
            known = replace(candidate, reasons=())
            if known in self.seen:
                continue
            self.seen.add(known)
            placed = _with_idle(candidate, self.workload, self.profiles, self.device, options)
            found = Proven(placed, ceiling, self.judge(placed))
            worst = found.worst
            self.keeps = worst is None or worst[0] >= self.target
            if self.keeps or self.best is None or worst > self.best.worst:  # type: ignore[operator]
                self.best = replace(found, plan=_stated(found))
            if self.keeps:
                return True
        return False


def _with_idle(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Plan:
    if awake(workload) is workload or any(assignment.idle for _, _, assignment in plan):
        return plan
    return seated(plan, workload, profiles, device, options)


def _plans(
    planner: Planner,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
) -> list[Plan]:
    """What the planner offers, fewest devices first: all it weighed, where it says so."""
    asking = awake(workload)
    if not isinstance(planner, SpaceTime) or asking is None:
        return [planner.plan(workload, profiles, device, options)]
    within_reach(asking, profiles, device, options)
    offered = planner.plans(asking, profiles, device, options)
    few = [p for p in offered if options.gpus is None or len(p.gpus) <= options.gpus]
    # Where none is small enough the planner says why.
    return few or [planner.plan(workload, profiles, device, options)]


def draws(workload: Workload) -> SimOptions:
    """What a plan is judged by: the draws `spacetime simulate` takes, cut where they are long."""
    options = SimOptions()
    if workload.arrivals.process == "trace":
        trace = workload.trace[: MOST_REQUESTS + 1]
        if len(trace) <= MOST_REQUESTS:
            return options
        return replace(options, duration_ns=max(trace[-1].time_ns, 1))
    rate = sum(tenant.rate_rps / tenant.mean_request for tenant in workload.tenants)
    if rate * options.replications * DURATION_NS / SECOND <= MOST_REQUESTS:
        return options
    seconds = MOST_REQUESTS / rate / options.replications
    return replace(options, duration_ns=max(round(seconds * SECOND), LEAST_NS))


def simulated(workload: Workload, profiles: Profiles, target: float) -> Attained:
    """Each asked tenant's attainment over `draws`; after a first look where that says enough."""
    full = draws(workload)
    short = replace(full, duration_ns=full.horizon_ns(workload) // FIRST_LOOK, replications=2)
    clearly = target - 3 * (1 - target)

    def attained(plan: Plan) -> Mapping[str, float]:
        if workload.arrivals.process != "trace":
            first = simulate_plan(plan, workload, profiles, short)
            if first.worst is not None and first.worst[0] < clearly:
                return first.asked
        return simulate_plan(plan, workload, profiles, full).asked

    return attained


@dataclass(frozen=True, slots=True)
class Kept:
    """A planner whose plans are simulated before they are given, see `best_of`."""

    planner: Planner

    @property
    def name(self) -> str:
        """Its own."""
        return self.planner.name

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`."""
        return best_of(self.planner, workload, profiles, device, options).plan


def _stated(found: Proven) -> Plan:
    why = tuple(
        Reason(name, f"{part:.2%} in time when simulated, under a ceiling of {found.ceiling:g}")
        for name, part in found.attained.items()
    )
    return replace(found.plan, reasons=(*found.plan.reasons, *why))
