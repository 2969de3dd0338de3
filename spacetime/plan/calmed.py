"""Smaller batches where they answer sooner: what a plan gains when arrivals are random. Pure.

The checker's bounds are for steady arrivals, and a planner that counts throughput drives batches to
them; at random arrivals such a partition is late half the time. This takes each partition of one
tenant as the plan placed it, and chooses among its measured batches the one of least expected
latency: the bound, and the wait for batches before it as in an M/M/1 queue. Devices, sizes,
processes and rates stay; headroom is what it costs.
"""

from __future__ import annotations

import math
from dataclasses import replace

from spacetime.plan.demand import serves
from spacetime.plan.memory import process_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import PartitionPlan, Plan
from spacetime.plan.timing import alone_ms, headroom
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload


def calm(plan: Plan, workload: Workload, profiles: Profiles, options: PlanOptions) -> Plan:
    """The plan with calmer batches, in no more memory; partitions that are shared stay."""
    tenants = {tenant.name: tenant for tenant in workload.tenants}
    gpus = tuple(
        replace(
            gpu,
            partitions=tuple(_calmer(part, tenants, profiles, options) for part in gpu.partitions),
        )
        for gpu in plan.gpus
    )
    models = {tenant.name: tenant.model for tenant in workload.tenants}
    parts = [part for gpu in gpus for part in gpu.partitions]
    return replace(plan, gpus=gpus, headroom=headroom(parts, profiles, models))


def expected_ms(point: Point, rate_rps: float) -> float:
    """A request's latency at random arrivals: its batch fills, others go first, its own runs."""
    busy = rate_rps / point.throughput_rps
    if busy >= 1:
        return math.inf
    wait_ms = point.latency_ms / point.procs * busy / (1 - busy)
    return alone_ms(point.batch, rate_rps, point.latency_ms) + wait_ms


def _calmer(
    part: PartitionPlan, tenants: dict[str, Tenant], profiles: Profiles, options: PlanOptions
) -> PartitionPlan:
    if len(part.tenants) != 1 or part.parent is not None or part.tenants[0].duty_ms is not None:
        return part
    (own,) = part.tenants
    if own.idle:
        return part
    tenant = tenants[own.tenant]
    fitting = [
        point
        for point in profiles.batches(tenant.model, part.kind, part.units, part.procs)
        if tenant.takes(point.batch)
        and serves(point, own.rate_rps, tenant.slo_ms, options)
        and part.procs * process_mib(point) <= (part.memory_mib or 0.0)
    ]
    if not fitting:
        return part
    best = min(fitting, key=lambda point: (expected_ms(point, own.rate_rps), point.batch))
    worst_ms = alone_ms(best.batch, own.rate_rps, best.latency_ms)
    calmer = replace(own, batch=best.batch, latency_ms=worst_ms)
    needed_mib = part.procs * process_mib(best) or None
    return replace(part, tenants=(calmer,), memory_mib=needed_mib)
