"""Plans that keep their objectives at random arrivals: proven by simulation, not by a rule.

A planner's bounds hold for steady arrivals; what randomness adds is left to a utilisation ceiling.
Instead of guessing the ceiling, plans are made from a high one downwards, each as it is and with
calmer batches. The one of fewest devices that the simulator sees keep every tenant's objective is
taken; ceilings go down only while fewer devices than that are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from spacetime.devices import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, Planner, PlanOptions, calm
from spacetime.plan.plan import Reason
from spacetime.plan.spacetime import SpaceTime
from spacetime.plan_simulator import SimOptions, simulate_plan
from spacetime.profile import Profiles
from spacetime.workload import Workload

CEILINGS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3)

Attained = Callable[[Plan], Mapping[str, float]]  # by tenant: fraction answered in time


@dataclass(frozen=True, slots=True)
class Proven:
    """A plan, the ceiling it was made under, and each tenant's simulated attainment."""

    plan: Plan
    ceiling: float
    attained: Mapping[str, float]


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

    `attained` None simulates 3 draws of 20 s of the workload's arrivals. Raises InfeasibleError:
    the planner's own, or with bound `attainment` naming the tenant served worst.
    """
    judge = attained or _simulated(workload, profiles)
    best: Proven | None = None
    worst: tuple[float, str] = (0.0, workload.tenants[0].name)
    ceilings = [c for c in CEILINGS if c < options.max_utilisation]
    for ceiling in (options.max_utilisation, *ceilings):
        under = replace(options, max_utilisation=ceiling)
        plans = [
            plan
            for plan in _plans(planner, workload, profiles, device, under)
            if best is None or len(plan.gpus) < len(best.plan.gpus)
        ]
        if not plans:
            break
        for plan in plans:
            found, least = _judged(plan, calm(plan, workload, profiles, under), judge, target)
            worst = max(worst, least)
            if found is not None:
                best = Proven(_stated(*found, ceiling), ceiling, found[1])
                break
    if best is not None:
        return best
    raise InfeasibleError(
        worst[1], "attainment",
        f"at best {worst[0]:.2%} of its requests are in time at random arrivals, {target:.2%} are "
        "asked; allow a longer objective, or smaller batches in its profile",
    )  # fmt: skip


def _plans(
    planner: Planner, workload: Workload, profiles: Profiles, device: DeviceFacts,
    options: PlanOptions,
) -> list[Plan]:  # fmt: skip
    """What the planner offers, fewest devices first: all it weighed, where it says so."""
    if not isinstance(planner, SpaceTime):
        return [planner.plan(workload, profiles, device, options)]
    offered = planner.plans(workload, profiles, device, options)
    return [p for p in offered if options.gpus is None or len(p.gpus) <= options.gpus]


def _judged(
    plan: Plan, calmer: Plan, judge: Attained, target: float
) -> tuple[tuple[Plan, Mapping[str, float]] | None, tuple[float, str]]:
    """The plan, or with calmer batches, if it keeps the target; and the tenant served worst."""
    worst = (0.0, "")
    for candidate in dict.fromkeys((plan, calmer)):
        seen = judge(candidate)
        least = min((fraction, name) for name, fraction in seen.items())
        worst = max(worst, least)
        if least[0] >= target:
            return (candidate, seen), worst
    return None, worst


def _simulated(workload: Workload, profiles: Profiles) -> Attained:
    draws = SimOptions(duration_ns=20 * 10**9, replications=3)
    return lambda plan: simulate_plan(plan, workload, profiles, draws).attainments


def _stated(plan: Plan, seen: Mapping[str, float], ceiling: float) -> Plan:
    why = tuple(
        Reason(name, f"{fraction:.2%} in time when simulated, under a ceiling of {ceiling:g}")
        for name, fraction in seen.items()
    )
    return replace(plan, reasons=(*plan.reasons, *why))
