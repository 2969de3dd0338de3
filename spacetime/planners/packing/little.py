"""What a handful of small tenants need: one small partition that they share, not a device. Pure.

Counting devices says nothing about a demand far below one: any layout of a device will do, and the
one with most headroom spreads two small models over all of it. This is the smallest partition in
whose turns all tenants fit with room to grow tenfold; the rest of the device stays free.
"""

from __future__ import annotations

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import GpuPlan, PartitionPlan, Plan, Reason
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.cycle import Demand, alone, filled, together
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload

TENFOLD = 9.0  # headroom: how much more than now
MOST = 16  # tenants in turns: more are no handful


def shared(
    workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Plan | None:
    """All tenants in turns on one partition smaller than the device, or None."""
    if len(workload.tenants) > MOST:
        return None
    sizes = {
        (point.units / device.whole(point.kind), point.kind, point.units)
        for tenant in workload.tenants
        for point in profiles.of(tenant.model)
    }
    for share, kind, units in sorted(sizes):
        if share >= 1:
            continue
        found = _on(kind, units, workload, profiles=profiles, device=device, options=options)
        if found is not None:
            return found
    return None


def _on(
    kind: str,
    units: int,
    workload: Workload,
    *,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
) -> Plan | None:
    demands = [
        Demand(
            tenant,
            tenant.rate_rps,
            tuple(
                point
                for point in profiles.batches(tenant.model, kind, units, 1)
                if tenant.takes(point.batch)
            ),
        )
        for tenant in workload.tenants
    ]
    if sum(demand.least_busy for demand in demands) * (1 + TENFOLD) > 1:  # inf without a point
        return None
    if len(demands) == 1:
        fit = alone(demands[0], options)
    else:
        fit = together(demands, options) or filled(demands, options)
    if fit is None:
        return None
    start = 0 if kind == "mig" else None
    part = PartitionPlan("g0p0", kind, units, fit.assignments, start)
    why = tuple(
        Reason(tenant.name, f"all fit one partition, {kind} {units}, and can grow tenfold there")
        for tenant in workload.tenants
    )
    made = Plan("shared", device.name, (GpuPlan(0, (part,)),), reasons=why)
    try:
        found = finish(made, workload, profiles, device, options)
    except InfeasibleError:  # memory
        return None
    return found if (found.headroom or 0.0) >= TENFOLD else None
