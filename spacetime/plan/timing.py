"""When a request is answered at the latest, by the way tenants share a partition. Pure.

Every planner and the checker use these rules, so that plans of different papers are comparable.
Arrivals are taken as steady: what randomness adds is left to the utilisation ceiling and to
simulation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spacetime.plan.plan import Assignment, PartitionPlan
from spacetime.profiles.profile import Point, Profiles

Turns = Literal["own", "all"]


@dataclass(frozen=True, slots=True)
class Load:
    """An assignment's point on its partition, the capacity it would have alone, and its bound."""

    point: Point
    capacity_rps: float
    worst_ms: float


def fill_ms(batch: int, rate_rps: float) -> float:
    """How long the first of a batch waits for the others; 0 for a batch of one."""
    if rate_rps == 0:
        return math.inf if batch > 1 else 0.0
    return (batch - 1) / rate_rps * 1000


def alone_ms(batch: int, rate_rps: float, latency_ms: float, largest: int = 1) -> float:
    """The worst case of a tenant that has its partition to itself.

    A batch up to the `largest` request is one request: it does not wait to be filled.

    >>> alone_ms(16, 160, 100)  # Nexus §4.1: about twice the latency when saturated
    193.75
    """
    return (fill_ms(batch, rate_rps) if batch > largest else 0.0) + latency_ms


def cycle_ms(duty_ms: float, own_ms: float, all_ms: float, turns: Turns = "own") -> float:
    """The worst case in a cycle: a whole cycle missed, then the tenant's own turn (Nexus).

    With turns `all` every tenant's turn is waited for as well (the released gpulet code).

    >>> cycle_ms(125, 50, 75 + 50)  # Nexus §4.1: model B beside A
    175
    """
    return duty_ms + (own_ms if turns == "own" else all_ms)


def loads(
    partition: PartitionPlan,
    profiles: Profiles,
    model_of: dict[str, str],
    *,
    turns: Turns = "own",
    largest: Mapping[str, int] = {},
    slower: Mapping[str, float] = {},
) -> list[Load | None]:
    """For each assignment of a partition its load, or None where no point covers its batch.

    By tenant, `largest`: the inputs of its largest request, where that is not one; `slower`: how
    many times as long its launches take beside its neighbours.
    """
    # Inside another partition a percentage means another amount: no point was measured there.
    members = len(partition.tenants) if partition.fused else 1
    points = [
        None
        if partition.parent is not None
        else profiles.at_fused(
            model_of[assignment.tenant],
            partition.kind,
            partition.units,
            assignment.batch,
            tenants=members,
            procs=partition.procs,
        )
        for assignment in partition.tenants
    ]
    points = [
        point and _slowed(point, slower.get(assignment.tenant, 1.0))
        for assignment, point in zip(partition.tenants, points, strict=True)
    ]
    all_ms = sum(
        point.latency_ms
        for assignment, point in zip(partition.tenants, points, strict=True)
        if point is not None and not assignment.idle
    )
    return [
        None
        if point is None
        else Load(
            point,
            _capacity(assignment, partition, point),
            _worst_ms(
                assignment,
                partition,
                point,
                all_ms,
                turns=turns,
                largest=largest.get(assignment.tenant, 1),
            ),
        )
        for assignment, point in zip(partition.tenants, points, strict=True)
    ]


def _slowed(point: Point, factor: float) -> Point:
    if factor == 1:
        return point
    ms, rps = point.latency_ms * factor, point.throughput_rps / factor
    return replace(point, latency_ms=ms, throughput_rps=rps)


def _capacity(assignment: Assignment, partition: PartitionPlan, point: Point) -> float:
    """Inputs a second this tenant could be served if the partition did nothing else."""
    # A padded batch takes as long as a full one and answers fewer.
    full = point.throughput_rps * assignment.batch / point.batch
    together = partition.fused or len(partition.sharers) <= 1
    return full if together else full / partition.procs


def _worst_ms(
    assignment: Assignment,
    partition: PartitionPlan,
    point: Point,
    all_ms: float,
    *,
    turns: Turns,
    largest: int,
) -> float:
    if partition.fused:  # its batches fill from the requests of all
        return alone_ms(assignment.batch, partition.rate_rps, point.latency_ms, largest)
    if assignment.duty_ms is not None:
        return cycle_ms(assignment.duty_ms, point.latency_ms, all_ms, turns)
    if assignment.idle:  # nothing is promised but its launch
        return point.latency_ms
    sharers = len(partition.sharers) if partition.procs == 1 else 1
    return alone_ms(assignment.batch, assignment.rate_rps, point.latency_ms * sharers, largest)


def busy(partition: PartitionPlan, found: Sequence[Load | None]) -> float:
    """The fraction of time a partition works; of its busiest process where they run together."""
    each = [
        assignment.rate_rps / load.capacity_rps
        for assignment, load in zip(partition.tenants, found, strict=True)
        if load is not None
    ]
    turns = partition.fused or partition.procs == 1 or len(partition.sharers) <= 1
    return sum(each) if turns else max(each, default=0.0)


def headroom(
    partitions: Sequence[PartitionPlan], profiles: Profiles, model_of: dict[str, str]
) -> float | None:
    """By how much every rate could grow before the busiest partition works all the time.

    None where nothing is planned for but tenants of rate 0.
    """
    busiest = max(busy(part, loads(part, profiles, model_of)) for part in partitions)
    return 1 / busiest - 1 if busiest else None
