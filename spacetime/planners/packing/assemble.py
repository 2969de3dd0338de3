"""From parts on devices to a plan: rates shared out, batches that fill, starts, headroom. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.demand import Part, lower_bound, never_fills, serves
from spacetime.plan.memory import excesses, partition_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.plan.timing import alone_ms, headroom, loads
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Workload


def assemble(
    name: str, devices: Sequence[Sequence[Part]], workload: Workload, *, profiles: Profiles,
    device: DeviceFacts, options: PlanOptions, reasons: Iterable[Reason] = (),
) -> Plan:  # fmt: skip
    """The plan of parts that have one tenant each; empty devices are left out.

    A tenant's rate is split over its parts by their throughput, so all are equally busy. Raises
    InfeasibleError with bound `fill`, `gpus`, `rate`, or `layout` for parts no device holds.
    """
    devices = [parts for parts in devices if parts]
    total = _totals(devices)
    gpus = [
        GpuPlan(
            number,
            _partitions(
                number, parts, total, profiles=profiles, options=options, geometry=device.geometry
            ),
        )
        for number, parts in enumerate(devices)
    ]
    return finish(Plan(name, device.name, tuple(gpus), reasons=tuple(reasons)),
                  workload, profiles, device, options)  # fmt: skip


def _partitions(
    number: int, parts: Sequence[Part], total: dict[str, float], *, profiles: Profiles,
    options: PlanOptions, geometry: mig.MigGeometry,
) -> tuple[PartitionPlan, ...]:  # fmt: skip
    starts: Sequence[int | None] | None = [None] * len(parts)
    if parts[0].point.kind == "mig":
        starts = mig.arrange(tuple(part.point.units for part in parts), geometry)
    if starts is None:
        raise InfeasibleError(parts[-1].tenant.name, "layout", f"gpu {number} cannot hold it")
    made = []
    for index, (part, start) in enumerate(zip(parts, starts, strict=True)):
        rate = _rate(part, total)
        point = _batch_that_fills(part, rate, profiles, options)
        worst_ms = alone_ms(point.batch, rate, point.latency_ms, part.tenant.largest_request)
        made.append(PartitionPlan(
            f"g{number}p{index}", point.kind, point.units,
            (Assignment(part.tenant.name, point.batch, rate, worst_ms),), start, point.procs,
        ))  # fmt: skip
    return tuple(made)


def never_filling(
    devices: Sequence[Sequence[Part]], profiles: Profiles, options: PlanOptions
) -> frozenset[str]:
    """The tenants `assemble` would refuse, because some part of theirs fills no batch in time."""
    total = _totals(devices)
    return frozenset(
        part.tenant.name
        for parts in devices
        for part in parts
        if not _fitting(part, _rate(part, total), profiles, options)
    )


def _totals(devices: Sequence[Sequence[Part]]) -> dict[str, float]:
    """Each tenant's throughput over all its parts."""
    total: dict[str, float] = defaultdict(float)
    for parts in devices:
        for part in parts:
            total[part.tenant.name] += part.point.throughput_rps
    return total


def _rate(part: Part, total: dict[str, float]) -> float:
    fair = part.tenant.rate_rps * part.point.throughput_rps / total[part.tenant.name]
    return fair if part.rate_rps is None else part.rate_rps


def _batch_that_fills(
    part: Part, rate_rps: float, profiles: Profiles, options: PlanOptions
) -> Point:
    fitting = _fitting(part, rate_rps, profiles, options)
    if not fitting:
        raise never_fills(part.tenant, part.point, rate_rps, options)
    if part.point in fitting:
        return part.point
    return max(fitting, key=lambda point: (point.throughput_rps, -point.batch))


def _fitting(part: Part, rate_rps: float, profiles: Profiles, options: PlanOptions) -> list[Point]:
    """The points of the part's size and processes that serve a rate, its own among them."""
    own, tenant = part.point, part.tenant
    return [
        point
        for point in profiles.batches(own.model, own.kind, own.units, own.procs)
        if (point == own or tenant.takes(point.batch))
        and serves(point, rate_rps, tenant.slo_ms, options, largest=tenant.largest_request)
    ]


def finish(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Plan:
    """The plan with its headroom and a lower bound of devices (a better one it has is kept).

    Raises InfeasibleError with bound `gpus` where there are fewer devices than it uses, `memory`
    where a device or partition cannot hold what is on it.
    """
    bound = max(lower_bound(workload, profiles, device, options), plan.lower_bound_gpus or 1)
    require_gpus(plan, bound, options)
    models = {tenant.name: tenant.model for tenant in workload.tenants}
    gpus = _with_memory(plan, profiles, models, device)
    parts = [partition for gpu in gpus for partition in gpu.partitions]
    spare = headroom(parts, profiles, models)
    return Plan(plan.planner, plan.device, gpus, bound, spare, plan.reasons)


def require_gpus(plan: Plan, bound: int | None, options: PlanOptions) -> None:
    """Raises InfeasibleError with bound `gpus` where the plan needs more devices than there are."""
    if options.gpus is not None and len(plan.gpus) > options.gpus:
        beyond = plan.gpus[options.gpus].partitions[0].tenants[0].tenant
        raise InfeasibleError(
            beyond, "gpus",
            f"{plan.planner} needs {len(plan.gpus)} devices, there are {options.gpus} "
            f"(no plan needs fewer than {bound})",
        )  # fmt: skip


def _with_memory(
    plan: Plan, profiles: Profiles, models: dict[str, str], device: DeviceFacts
) -> tuple[GpuPlan, ...]:
    """The devices, each partition with the memory it needs where the profile states it."""
    if not profiles.states_memory:
        return plan.gpus
    gpus = []
    for gpu in plan.gpus:
        parts = [
            replace(part, memory_mib=partition_mib(part, points) or None)
            for part in gpu.partitions
            for points in [_points(part, profiles, models)]
        ]
        gpus.append(made := replace(gpu, partitions=tuple(parts)))
        needed = {part.id: part.memory_mib or 0.0 for part in parts}
        for excess in excesses(made, needed, device):
            name = max(excess.parts, key=lambda part: part.memory_mib or 0.0).tenants[0].tenant
            raise InfeasibleError(name, "memory", f"on {excess.where}: {excess}")
    return tuple(gpus)


def _points(part: PartitionPlan, profiles: Profiles, models: dict[str, str]) -> list[Point | None]:
    return [None if load is None else load.point for load in loads(part, profiles, models)]
