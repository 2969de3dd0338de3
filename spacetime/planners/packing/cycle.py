"""Whether tenants fit one partition, with which batches, alone or in turns. Pure.

Timing rules of gpulet (ATC'22) and Nexus (SOSP'19 §4.1). A tenant alone collects a batch while
the one before runs, so a partition that is always busy needs twice the latency to be within the
objective. Tenants in turns share a cycle of fixed length, in which each runs one batch. Deviation:
batches are rounded up (`ceil(cycle * rate)`), where the released gpulet code rounds down and serves
less than it was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment
from spacetime.plan.timing import alone_ms, cycle_ms
from spacetime.profiles.profile import Point
from spacetime.workload.workload import Tenant

ROUNDING = 1e-9  # relative: products of rates and cycles are not exact


@dataclass(frozen=True, slots=True)
class Demand:
    """A tenant's `rate_rps` on a partition where its points are `points`, by ascending batch.

    `slowdown` multiplies every latency: what neighbours on the device cost, 1 for none.
    """

    tenant: Tenant
    rate_rps: float
    points: tuple[Point, ...]
    slowdown: float = 1.0
    longest_ms: float = field(init=False, compare=False)  # the longest cycle it could have alone
    quickest_ms: float = field(init=False, compare=False)  # no turn of it is shorter
    least_busy: float = field(init=False, compare=False)  # the time it needs, as a fraction

    def __post_init__(self) -> None:
        # Asked for again and again, by every partition that others might join.
        keep = object.__setattr__
        keep(self, "longest_ms", _longest_ms(self))
        quickest = min((point.latency_ms for point in self.points), default=0.0)
        keep(self, "quickest_ms", quickest * self.slowdown)
        fastest = max((point.throughput_rps for point in self.points), default=0.0)
        keep(self, "least_busy", self.rate_rps / fastest if fastest else math.inf)


@dataclass(frozen=True, slots=True)
class Fit:
    """How tenants fit a partition: their assignments, and the fraction of time it is `busy`.

    Launches of batches that do not fill count whole here, unlike in the checker's utilisation.
    """

    assignments: tuple[Assignment, ...]
    busy: float


def saturated_rps(demand: Demand, options: PlanOptions) -> float:
    """The highest rate a partition serves this tenant alone; 0 where it serves none."""
    found = 0.0
    for point in demand.points:
        latency_ms = point.latency_ms * demand.slowdown
        rate = point.throughput_rps / demand.slowdown * options.max_utilisation
        waits_ms = latency_ms / options.max_utilisation  # for the batch before, and to be filled
        # A measured throughput may be below batch / latency: then it fills more slowly still.
        worst_ms = max(waits_ms + latency_ms, alone_ms(point.batch, rate, latency_ms))
        if worst_ms <= demand.tenant.slo_ms * (1 + ROUNDING):
            found = max(found, rate)
    return found


def alone(demand: Demand, options: PlanOptions) -> Fit | None:
    """The batch that keeps the partition least busy at this rate, or None where none serves it."""
    best: Fit | None = None
    smaller = 0
    tenant, rate = demand.tenant, demand.rate_rps
    for point in demand.points:
        latency_ms = point.latency_ms * demand.slowdown
        fills = rate * (tenant.slo_ms - latency_ms) / 1000  # inputs that come while one may wait
        batch = min(point.batch, math.floor(fills + ROUNDING * point.batch) + 1)
        freely = not tenant.batch_sizes and batch >= tenant.largest_request
        measured = batch == point.batch or (batch > smaller and freely)
        smaller = point.batch
        if not measured or 2 * latency_ms > tenant.slo_ms * (1 + ROUNDING):
            continue
        busy = rate * demand.slowdown * point.batch / (point.throughput_rps * batch)
        if busy <= options.max_utilisation * (1 + ROUNDING) and (best is None or busy < best.busy):
            worst_ms = alone_ms(batch, rate, latency_ms)
            best = Fit((Assignment(tenant.name, batch, rate, worst_ms),), busy)
    return best


def together(demands: Sequence[Demand], options: PlanOptions) -> Fit | None:
    """The tenants in turns of one cycle, or None. The cycle is the shortest any of them needs.

    Where waiting for all turns (`options.turns` = `all`) breaks an objective, a cycle shorter by
    that much is tried.
    """
    return _in_cycle(demands, min(demand.longest_ms for demand in demands), options)


def filled(demands: Sequence[Demand], options: PlanOptions) -> Fit | None:
    """The tenants in turns of a shorter cycle, in which nobody's batch is padded; or None.

    It is the longest that fills a measured batch of each. Where few batches were measured, the
    cycle of `together` may be so long that the next larger batch takes all of it. Ours.
    """
    longest_ms = min(demand.longest_ms for demand in demands)
    duty_ms = min(
        max(
            (ms for p in demand.points if (ms := p.batch / demand.rate_rps * 1000) < longest_ms),
            default=0.0,
        )
        for demand in demands
    )
    return _in_cycle(demands, duty_ms, options)


def _in_cycle(demands: Sequence[Demand], duty_ms: float, options: PlanOptions) -> Fit | None:
    if duty_ms <= 0 or sum(demand.quickest_ms for demand in demands) > duty_ms * (1 + ROUNDING):
        return None
    if (turns := _turns(demands, duty_ms)) is None:
        return None
    if options.turns == "all":
        turns_ms = sum(turn.latency_ms for turn in turns)
        shorter_ms = min(demand.tenant.slo_ms for demand in demands) - turns_ms
        if shorter_ms < duty_ms:
            duty_ms = shorter_ms
            turns = _turns(demands, duty_ms) if duty_ms > 0 else None
    return None if turns is None else _judge(demands, turns, duty_ms, options)


@dataclass(frozen=True, slots=True)
class _Turn:
    batch: int
    latency_ms: float
    capacity_rps: float


def _longest_ms(demand: Demand) -> float:
    """The longest cycle this tenant could have alone: filled by its rate, and within objective."""
    return max(
        (
            min(point.batch / demand.rate_rps * 1000, demand.tenant.slo_ms - latency_ms)
            for point in demand.points
            if 2 * (latency_ms := point.latency_ms * demand.slowdown) <= demand.tenant.slo_ms
        ),
        default=0.0,
    )


def _turns(demands: Sequence[Demand], duty_ms: float) -> list[_Turn] | None:
    turns = []
    room_ms = duty_ms * (1 + 2 * ROUNDING)
    for demand in demands:
        due = math.ceil(duty_ms * demand.rate_rps / 1000 * (1 - ROUNDING))
        batch = max(demand.tenant.largest_request, due)
        point = next((point for point in demand.points if point.batch >= batch), None)
        if point is None:
            return None
        if demand.tenant.batch_sizes:
            batch = point.batch
        capacity_rps = point.throughput_rps * batch / point.batch / demand.slowdown
        turns.append(_Turn(batch, point.latency_ms * demand.slowdown, capacity_rps))
        if (room_ms := room_ms - turns[-1].latency_ms) < 0:
            return None
    return turns


def _judge(
    demands: Sequence[Demand], turns: Sequence[_Turn], duty_ms: float, options: PlanOptions
) -> Fit | None:
    turns_ms = sum(turn.latency_ms for turn in turns)
    busy = sum(d.rate_rps / t.capacity_rps for d, t in zip(demands, turns, strict=True))
    if turns_ms > duty_ms * (1 + ROUNDING) or busy > options.max_utilisation * (1 + ROUNDING):
        return None
    made = []
    for demand, turn in zip(demands, turns, strict=True):
        worst_ms = cycle_ms(duty_ms, turn.latency_ms, turns_ms, options.turns)
        if worst_ms > demand.tenant.slo_ms * (1 + ROUNDING):
            return None
        made.append(Assignment(demand.tenant.name, turn.batch, demand.rate_rps, worst_ms, duty_ms))
    return Fit(tuple(made), turns_ms / duty_ms)
