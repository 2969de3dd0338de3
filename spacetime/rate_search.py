"""Latency-bounded throughput: the highest rate at which a plan keeps its objectives. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from spacetime.plan import Plan
from spacetime.plan_simulator import SimOptions, simulate_plan
from spacetime.profile import Profiles
from spacetime.workload import Workload

LARGEST = 2.0**30
SMALLEST = 2.0**-30


@dataclass(frozen=True, slots=True)
class Probe:
    """One rate that was simulated: every rate times `scale`, and the attainment it gave."""

    scale: float
    attainment: float


@dataclass(frozen=True, slots=True)
class RateSearch:
    """`scale` was simulated itself and kept the target; 0 where no rate does.

    `probes` are in the order they were simulated. Every probe up to `scale` kept the target, and
    every one above it failed.
    """

    scale: float
    target: float
    probes: tuple[Probe, ...]


def highest_scale(
    attained: Callable[[float], float], target: float, *, tolerance: float = 0.01
) -> RateSearch:
    """The highest scale at which `attained(scale)` is at least `target`, to a relative tolerance.

    Doubles or halves from 1 until the answer lies between a scale that keeps the target and twice
    it, then bisects; only a scale that was tried is ever returned. Where `attained` is no falling
    function the answer is one of its crossings.
    """
    probes: list[Probe] = []

    def keeps(scale: float) -> bool:
        probes.append(Probe(scale, attained(scale)))
        return probes[-1].attainment >= target

    low = 1.0
    if keeps(low):
        while low < LARGEST and keeps(2 * low):
            low *= 2
    else:
        low /= 2
        while low >= SMALLEST and not keeps(low):
            low /= 2
        if low < SMALLEST:
            return RateSearch(0.0, target, tuple(probes))
    high = 2 * low
    while high > low * (1 + tolerance):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return RateSearch(low, target, tuple(probes))


def highest_rate(
    plan: Plan,
    workload: Workload,
    profiles: Profiles,
    options: SimOptions | None = None,
    *,
    target: float = 0.99,
    tolerance: float = 0.01,
) -> RateSearch:
    """The highest common scale of all rates at which every tenant attains `target`.

    The seeds are the same at every rate, so each probe is the same pattern of arrivals, denser.
    """
    options = options or SimOptions()

    def attained(scale: float) -> float:
        run = simulate_plan(plan, workload, profiles, replace(options, rate_scale=scale))
        asked = any(tenant.offered for each in run.replications for tenant in each.tenants)
        return min(run.attainments.values()) if asked else 0.0  # no request shows nothing

    return highest_scale(attained, target, tolerance=tolerance)
