"""What holds for every planner: what no devices can serve is refused at once, and who is idle has a
place. Pure.

A demand whose proven lower bound is above what there is needs no search to be refused. Tenants of
rate 0 take no part in a search either: when the plan is made they are put beside others, on the
partition they disturb least, or on units that nothing uses; a device is added for them only where
there is no other place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.demand import at_least, bound_by_tenant, usable
from spacetime.plan.memory import excesses, fits, held, partition_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.plan.timing import busy, loads
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

MOST_GPUS = 1024  # of a plan: more is a rate in a wrong unit, or a workload to be divided
Kind = TypeVar("Kind", bound=type[Any])


def gated(kind: Kind) -> Kind:
    """A class of planners whose `plan` does all this."""
    search: Callable[..., Plan] = kind.plan

    @wraps(search)
    def plan(
        self: Any, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        asking = awake(workload)
        if asking is None:
            nobody = Plan(self.name, device.name, ())
            return seated(nobody, workload, profiles, device, options)
        within_reach(asking, profiles, device, options)
        made = search(self, asking, profiles, device, options)
        return made if asking is workload else seated(made, workload, profiles, device, options)

    kind.plan = plan
    return kind


def awake(workload: Workload) -> Workload | None:
    """The workload without its idle tenants; None where that leaves nobody."""
    asking = tuple(tenant for tenant in workload.tenants if tenant.rate_rps)
    if len(asking) == len(workload.tenants):
        return workload
    return replace(workload, tenants=asking, trace=()) if asking else None


def within_reach(
    workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> None:
    """Raises InfeasibleError with bound `gpus` for more than any plan of so many devices serves.

    What else is wrong with the workload the planner says itself.
    """
    try:
        bounds = bound_by_tenant(workload, profiles, device, options)
    except InfeasibleError:
        return
    total = sum(bounds.values())
    most = MOST_GPUS if options.gpus is None else min(options.gpus, MOST_GPUS)
    if total <= most * (1 + 1e-9):
        return
    name = max(bounds, key=lambda each: bounds[each])
    (rate,) = (tenant.rate_rps for tenant in workload.tenants if tenant.name == name)
    there = f"there are {most}" if options.gpus == most else f"a plan has at most {most}"
    unit = "; is rate_rps in requests a second?" if total > 10 * most else ""
    raise InfeasibleError(
        name,
        "gpus",
        f"any plan needs {at_least(total)} devices at least, {there} (no plan needs fewer than "
        f"{at_least(total)}; its {rate:.6g} req/s alone take {bounds[name]:.4g}){unit}",
    )


def seated(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Plan:
    """The plan with a place for every idle tenant. Raises InfeasibleError: `profile`, `latency`,
    or `gpus` where none of the devices there are has a place."""
    models = {tenant.name: tenant.model for tenant in workload.tenants}
    seats = _Seats(list(plan.gpus), models, profiles, device, options)
    idle = (tenant for tenant in workload.tenants if not tenant.rate_rps)
    why = [Reason(tenant.name, f"is idle: {seats.seat(tenant)}") for tenant in idle]
    bound = plan.lower_bound_gpus or (None if plan.gpus else 1)
    reasons = (*plan.reasons, *why)
    return replace(plan, gpus=tuple(seats.gpus), reasons=reasons, lower_bound_gpus=bound)


class _Seats:
    """The devices of a plan, as idle tenants are put on them."""

    def __init__(
        self,
        gpus: list[GpuPlan],
        models: dict[str, str],
        profiles: Profiles,
        device: DeviceFacts,
        options: PlanOptions,
    ) -> None:
        self.gpus = gpus
        self._models, self._profiles = models, profiles
        self._device, self._options = device, options
        self._busy: dict[str, float] = {}

    def seat(self, tenant: Tenant) -> str:
        """Puts the tenant somewhere; says where."""
        points = [
            point
            for point in usable(tenant, self._profiles, self._options)
            if fits(point, self._device)
        ] or list(usable(tenant, self._profiles, self._options))
        within = {(point.kind, point.units, point.batch, point.procs) for point in points}
        places = list(self._beside(tenant))
        for late in (False, True):
            for number, index, point in places:
                key = (point.kind, point.units, point.batch, point.procs)
                if late or key in within:
                    return self._join(number, index, tenant, point)
            if (found := self._in_free_units(tenant, points)) is not None:
                return found
        return self._on_another(tenant, points)

    def _beside(self, tenant: Tenant) -> Iterator[tuple[int, int, Point]]:
        """Partitions it can share, the least busy first, each with its smallest batch there."""
        order = sorted(
            (len(part.tenants) - len(part.sharers), self._load(part), number, index)
            for number, gpu in enumerate(self.gpus)
            for index, part in enumerate(gpu.partitions)
            if part.tenants and not part.fused and part.parent is None
        )
        for _, _, number, index in order:
            part = self.gpus[number].partitions[index]
            of_size = self._profiles.batches(tenant.model, part.kind, part.units, part.procs)
            for point in of_size:
                if tenant.takes(point.batch) and self._held(number, index, tenant, point):
                    yield number, index, point
                    break

    def _load(self, part: PartitionPlan) -> float:
        if part.id not in self._busy:
            self._busy[part.id] = busy(part, loads(part, self._profiles, self._models))
        return self._busy[part.id]

    def _with(self, number: int, index: int, tenant: Tenant, point: Point) -> GpuPlan:
        parts = list(self.gpus[number].partitions)
        own = Assignment(tenant.name, point.batch, 0.0, point.latency_ms)
        parts[index] = self._stating(replace(parts[index], tenants=(*parts[index].tenants, own)))
        return replace(self.gpus[number], partitions=tuple(parts))

    def _stating(self, part: PartitionPlan) -> PartitionPlan:
        if not self._profiles.states_memory:
            return part
        found = loads(part, self._profiles, self._models)
        points = [None if load is None else load.point for load in found]
        return replace(part, memory_mib=partition_mib(part, points) or None)

    def _held(self, number: int, index: int, tenant: Tenant, point: Point) -> bool:
        if not self._profiles.states_memory:
            return True
        gpu = self._with(number, index, tenant, point)
        needed = {part.id: part.memory_mib or 0.0 for part in gpu.partitions}
        return next(excesses(gpu, needed, self._device), None) is None

    def _join(self, number: int, index: int, tenant: Tenant, point: Point) -> str:
        self.gpus[number] = self._with(number, index, tenant, point)
        part = self.gpus[number].partitions[index]
        others = (
            ", ".join(assignment.tenant for assignment in part.sharers[:3]) or "other idle tenants"
        )
        return f"served on {part.id} when {others} leave room"

    def _in_free_units(self, tenant: Tenant, points: Sequence[Point]) -> str | None:
        """On units that nothing uses; the fewest that answer in time."""
        for point in sorted(points, key=lambda p: (p.units, p.procs, p.batch)):
            for number, gpu in enumerate(self.gpus):
                made = self._opened(gpu, tenant, point)
                if made is not None:
                    self.gpus[number] = made
                    return f"on {point.kind} {point.units} of gpu {gpu.id} that nothing else uses"
        return None

    def _opened(self, gpu: GpuPlan, tenant: Tenant, point: Point) -> GpuPlan | None:
        """The device with one partition more; None where it has no room, or is of another kind."""
        outer = [part for part in gpu.partitions if part.parent is None]
        if any(part.kind != point.kind for part in outer) or len(outer) < len(gpu.partitions):
            return None
        own = Assignment(tenant.name, point.batch, 0.0, point.latency_ms)
        name = f"g{gpu.id}p{len(gpu.partitions)}"
        more = self._stating(
            PartitionPlan(name, point.kind, point.units, (own,), None, point.procs)
        )
        parts = (*outer, more)
        if not held(parts, self._device) or any(part.id == name for part in outer):
            return None
        if point.kind != "mig":
            room = self._device.whole(point.kind)
            fit = sum(part.units for part in parts) <= room
            return replace(gpu, partitions=parts) if fit else None
        taken = [mig.Placement(part.units, part.start or 0) for part in outer]
        geometry = self._device.geometry
        shape = geometry.shape(point.units)
        for start in shape.starts if shape else ():
            if mig.fits([*taken, mig.Placement(point.units, start)], geometry):
                return replace(gpu, partitions=(*outer, replace(more, start=start)))
        return None

    def _on_another(self, tenant: Tenant, points: Sequence[Point]) -> str:
        if self._options.gpus is not None and len(self.gpus) >= self._options.gpus:
            raise InfeasibleError(
                tenant.name,
                "gpus",
                f"is idle, and none of the {self._options.gpus} devices has a partition with a "
                f"point of {tenant.model}, or units for one",
            )
        number = max((gpu.id for gpu in self.gpus), default=-1) + 1
        self.gpus.append(GpuPlan(number, ()))
        for point in sorted(points, key=lambda p: (p.units, p.procs, p.batch)):
            made = self._opened(self.gpus[-1], tenant, point)
            if made is not None:
                self.gpus[-1] = made
                return f"alone on gpu {number}: no other has a partition for it, or free units"
        raise InfeasibleError(
            tenant.name, "layout", f"no device of {self._device.name} holds a partition of its own"
        )
