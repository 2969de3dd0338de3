"""Which bound binds each tenant of a plan, and what the next cheaper plan would break. Pure.

Each bound is a figure of how far it is used up: 1 means that nothing is left. The tightest one of
an assignment binds. What a cheaper plan would violate is worked out by trying: the tenant's own
partition one size smaller, and all tenants on one device fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.plan.demand import ceiling_rps, usable
from spacetime.plan.memory import partition_mib, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, PartitionPlan, Plan, Reason
from spacetime.plan.timing import Load, alone_ms, busy, fill_ms, loads
from spacetime.planners.packing.consolidate import refused_at
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Tenant, Workload


@dataclass(frozen=True, slots=True)
class BindingBound:
    """How much of a bound is used: `of` 1 is all of it. `text` has the figures."""

    name: str
    of: float
    text: str

    def __str__(self) -> str:
        return f"{self.name} binds: {self.text}"


def explained(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Plan:
    """The plan with reasons: what binds each assignment, and what cheaper would violate."""
    tenants = {tenant.name: tenant for tenant in workload.tenants}
    asked = plan.without_idle()
    if not asked.gpus:
        return plan
    why = [
        Reason(each.tenant, f"on {part.id} {text}")
        for gpu in asked.gpus
        for part in gpu.partitions
        for each, text in _partition(
            part, tenants, profiles=profiles, device=device, options=options
        )
    ]
    why.append(_fewer(asked, workload, profiles, device, options))
    return replace(plan, reasons=(*plan.reasons, *why))


def _partition(
    part: PartitionPlan, tenants: dict[str, Tenant], *, profiles: Profiles, device: DeviceFacts,
    options: PlanOptions,
) -> Iterator[tuple[Assignment, str]]:  # fmt: skip
    models = {each.tenant: tenants[each.tenant].model for each in part.tenants}
    largest = {each.tenant: tenants[each.tenant].largest_request for each in part.tenants}
    found = loads(part, profiles, models, turns=options.turns, largest=largest)
    for each, load in zip(part.tenants, found, strict=True):
        if load is None:
            continue
        tenant = tenants[each.tenant]
        bounds = bounds_of(part, each, tenant, found, device=device, options=options)
        tightest = max(bounds, key=lambda bound: bound.of)
        share = each.rate_rps / tenant.rate_rps
        route = f"gets {share:.0%} of its requests; " if share < 1 - 1e-6 else ""
        yield each, route + str(tightest) + _smaller(part, each, tenant, profiles, options)


def bounds_of(
    part: PartitionPlan, each: Assignment, tenant: Tenant, found: list[Load | None], *,
    device: DeviceFacts, options: PlanOptions,
) -> list[BindingBound]:  # fmt: skip
    """Every bound of an assignment: utilisation, objective or batch fill, rate, memory."""
    load = next(x for a, x in zip(part.tenants, found, strict=True) if a is each)
    assert load is not None, "only an assignment that has a point has bounds"
    used = busy(part, found)
    bounds = [BindingBound(
        "utilisation ceiling", used / options.max_utilisation,
        f"busy {used:.2f} of {options.max_utilisation:g}",
    )]  # fmt: skip
    late, slo_ms = load.worst_ms / tenant.slo_ms, tenant.slo_ms
    waits_ms = 0.0 if each.duty_ms is not None else load.worst_ms - load.point.latency_ms
    if waits_ms > load.point.latency_ms:
        text = f"a batch of {each.batch} fills in {waits_ms:.4g} of {slo_ms:g} ms"
        bounds.append(BindingBound("batch fill", late, text))
    else:
        bounds.append(
            BindingBound("SLO", late, f"answered within {load.worst_ms:.4g} of {slo_ms:g} ms")
        )
    if each.duty_ms is not None:
        served = each.batch / each.duty_ms * 1000
        text = f"{each.rate_rps:.4g} of the {served:.4g} req/s that one batch a cycle serves"
        bounds.append(BindingBound("rate", each.rate_rps / served, text))
    needed = partition_mib(part, [None if x is None else x.point for x in found])
    if needed:
        room = room_mib(part.kind, part.units, device)
        bounds.append(BindingBound("memory", needed / room, f"{needed:,.0f} of {room:,.0f} MiB"))
    return bounds


def _smaller(
    part: PartitionPlan, each: Assignment, tenant: Tenant, profiles: Profiles, options: PlanOptions
) -> str:
    """What the next smaller partition would need more than there is, for a tenant alone."""
    if len(part.tenants) > 1 or part.parent is not None:
        return ""
    points = [
        p for p in usable(tenant, profiles, replace(options, max_procs=1000), kind=part.kind)
        if p.units < part.units
    ]  # fmt: skip
    if not points:
        return "; it has no smaller partition in time"
    units = max(point.units for point in points)
    tried = []
    for point in (p for p in points if p.units == units and p.procs <= options.max_procs):
        worst_ms = alone_ms(point.batch, each.rate_rps, point.latency_ms, tenant.largest_request)
        filling = point.latency_ms < fill_ms(point.batch, each.rate_rps)
        tried.append(max(
            (each.rate_rps / ceiling_rps(point, options), "utilisation ceiling"),
            (worst_ms / tenant.slo_ms, "objective, to fill its batch" if filling else "objective"),
        ))  # fmt: skip
    if not tried:
        return ""
    of, name = min(tried)
    if of <= 1:
        return f"; {part.kind} {units} would do as well, with less headroom"
    return f"; {part.kind} {units} would need {of:.2f} of its {name}"


def _fewer(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Reason:
    gpus = len(plan.gpus)
    if gpus == 1:
        return Reason(_first(plan), "one device fewer: there would be none")
    if gpus == plan.lower_bound_gpus:
        return Reason(
            _first(plan),
            f"one device fewer: {gpus} are the fewest of any such plan, which is proven",
        )
    return refused_at(plan, workload, profiles, device, options)


def _first(plan: Plan) -> str:
    return next(each.tenant for _, _, each in plan)
