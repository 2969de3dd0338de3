"""Latency-bounded throughput: the highest rate at which a plan keeps its objectives. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from spacetime.plan import Plan
from spacetime.profiles.profile import Profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.workload.workload import Workload

LARGEST = 2.0**30
SMALLEST = 2.0**-30
ROUGHLY = 10  # a guess simulates one part of so many of the time, once
NEAR = 1.1  # the factor by which the answer is likely to lie within a guess


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
    attained: Callable[[float], float],
    target: float,
    *,
    tolerance: float = 0.01,
    start: float = 1.0,
    step: float = 2.0,
) -> RateSearch:
    """The highest scale at which `attained(scale)` is at least `target`, to a relative tolerance.

    Goes up or down from `start`, by `step` at first and at most by 2, until the answer lies between
    a scale that keeps the target and one that fails, then bisects; only a scale that was tried is
    ever returned. Where `attained` is no falling function the answer is one of its crossings.
    """
    probes: list[Probe] = []

    def keeps(scale: float) -> bool:
        probes.append(Probe(scale, attained(scale)))
        return probes[-1].attainment >= target

    low = high = start
    if keeps(start):
        while low == high:
            high = low * step
            if high < 2 * LARGEST and keeps(high):
                low, step = high, min(2.0, step * step)
    else:
        while low == high:
            low = high / step
            if low < SMALLEST:
                return RateSearch(0.0, target, tuple(probes))
            if not keeps(low):
                high, step = low, min(2.0, step * step)
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
    seen: Callable[[float], None] | None = None,
) -> RateSearch:
    """The highest common scale of all rates at which every tenant attains `target`.

    The seeds are the same at every rate, so each probe is the same pattern of arrivals, denser. A
    short simulation guesses where to begin: at many times the rate a whole one takes seconds.
    `seen` is told each scale before it is simulated.
    """
    options = options or SimOptions()

    def attained(scale: float, *, roughly: bool = False) -> float:
        if seen is not None:
            seen(scale)
        here = replace(options, rate_scale=scale)
        if roughly:
            part = max(1, here.horizon_ns(workload) // ROUGHLY)
            here = replace(here, replications=1, duration_ns=part)
        run = simulate_plan(plan, workload, profiles, here)
        asked = any(
            tenant.offered for replication in run.replications for tenant in replication.tenants
        )
        return min(run.attainments.values()) if asked else 0.0  # no request shows nothing

    guess = highest_scale(partial(attained, roughly=True), target, tolerance=NEAR - 1)
    start, step = (guess.scale, NEAR) if guess.scale else (1.0, 2.0)
    return highest_scale(attained, target, tolerance=tolerance, start=start, step=step)
