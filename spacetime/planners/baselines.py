"""What people do today, as planners: whole devices, MIG alone, slices of time, and plain MPS.

None is from a paper. They answer what sharing in space and time is worth on a given workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import ROUNDING, Part, copies, usable
from spacetime.plan.memory import holding, process_mib, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.timing import alone_ms
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import assemble, finish
from spacetime.planners.packing.mig_devices import Devices
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

OPEN = 32  # devices looked at for room: the last opened; thousands of tenants stay quick


@gated
@dataclass(frozen=True, slots=True)
class WholeGpu:
    """`whole-gpu`: each tenant has devices of its own, one process on each."""

    name: str = "whole-gpu"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`."""
        profiles = holding(workload, profiles, device)
        devices: list[list[Part]] = []
        for tenant in workload.tenants:
            points = whole(tenant, profiles, device, options, procs=1)
            number, point = copies(tenant, points, options)
            devices += [[Part(tenant, point)]] * number
        return assemble(
            self.name, devices, workload, profiles=profiles, device=device, options=options
        )


@gated
@dataclass(frozen=True, slots=True)
class MigOnly:
    """`mig-only`: one process an instance, each tenant on the smallest size that can answer it."""

    name: str = "mig-only"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`; sizes are packed largest first, best fit."""
        profiles = holding(workload, profiles, device)
        parts: list[Part] = []
        for tenant in workload.tenants:
            points = [p for p in usable(tenant, profiles, options, kind="mig") if p.procs == 1]
            number, point = _smallest(tenant, points, options)
            parts += [Part(tenant, point)] * number
        devices = Devices(two_threes=True, geometry=device.geometry)
        for part in sorted(parts, key=lambda part: -part.point.units):
            devices.place(part)
        return assemble(
            self.name, devices.parts, workload, profiles=profiles, device=device, options=options
        )


def _smallest(tenant: Tenant, points: Sequence[Point], options: PlanOptions) -> tuple[int, Point]:
    """`copies` on the smallest size that serves the tenant; else why the largest does not."""
    if not points:
        raise InfeasibleError(tenant.name, "profile", "no point with one process in time")
    smallest = [point for point in points if point.units == points[0].units]
    larger = [point for point in points if point.units > points[0].units]
    try:
        return copies(tenant, smallest, options)
    except InfeasibleError:
        if not larger:
            raise
        return _smallest(tenant, larger, options)


@gated
@dataclass(frozen=True, slots=True)
class MpsDefault:
    """`mps-default`: whole devices, `max_procs` processes on each, no percentages.

    How processes of different models slow each other is not in a profile; as many processes of the
    tenant's own model stand in for the strangers beside it.
    """

    name: str = "mps-default"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`; processes are dealt to devices in the order of the tenants."""
        profiles = holding(workload, profiles, device)
        most = options.max_procs
        dealt: list[tuple[Point, Assignment]] = []
        for tenant in workload.tenants:
            points = whole(tenant, profiles, device, options, procs=most)
            number, point = copies(tenant, points, options, share=1 / most)
            rate = tenant.rate_rps / number
            worst_ms = alone_ms(point.batch, rate, point.latency_ms)
            dealt += [(point, Assignment(tenant.name, point.batch, rate, worst_ms))] * number
        gpus = tuple(
            _one(number, dealt[first : first + most])
            for number, first in enumerate(range(0, len(dealt), most))
        )
        return finish(Plan(self.name, device.name, gpus), workload, profiles, device, options)


def _one(number: int, dealt: Sequence[tuple[Point, Assignment]]) -> GpuPlan:
    """A device whose one partition is all of it."""
    point = dealt[0][0]
    partition = PartitionPlan(
        f"g{number}p0",
        point.kind,
        point.units,
        tuple(each for _, each in dealt),
        0 if point.kind == "mig" else None,
        point.procs,
    )
    return GpuPlan(number, (partition,))


@dataclass(slots=True)
class _Sliced:
    """A device being filled with processes that slice its time."""

    pieces: list[tuple[Tenant, float, tuple[Point, ...]]] = field(default_factory=list)
    least_busy: float = 0.0


@gated
@dataclass(frozen=True, slots=True)
class TimeOnly:
    """`time-only`: whole devices whose driver slices time between the tenants' processes.

    Each of n processes on a device is promised an n-th of it: a launch takes n times as long.
    """

    name: str = "time-only"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`; busiest tenants first, each to the first device that can take it."""
        profiles = holding(workload, profiles, device)
        pieces = []
        for tenant in workload.tenants:
            points = whole(tenant, profiles, device, options, procs=1)
            number, _ = copies(tenant, points, options)
            rate = tenant.rate_rps / number
            busy = rate / max(p.throughput_rps for p in points)
            pieces += [(busy, (tenant, rate, points))] * number
        devices: list[_Sliced] = []
        for busy, piece in sorted(pieces, key=lambda pair: -pair[0]):
            self._place(busy, piece, devices, options, device)
        gpus = tuple(
            _one(number, _settle(sliced.pieces, options, device) or [])
            for number, sliced in enumerate(devices)
        )
        return finish(Plan(self.name, device.name, gpus), workload, profiles, device, options)

    @staticmethod
    def _place(
        busy: float,
        piece: tuple[Tenant, float, tuple[Point, ...]],
        devices: list[_Sliced],
        options: PlanOptions,
        device: DeviceFacts,
    ) -> None:
        for sliced in devices[-OPEN:]:
            if sliced.least_busy + busy > options.max_utilisation:
                continue
            if _settle([*sliced.pieces, piece], options, device) is not None:
                break
        else:
            devices.append(sliced := _Sliced())
        sliced.pieces.append(piece)
        sliced.least_busy += busy


def _settle(
    pieces: Sequence[tuple[Tenant, float, tuple[Point, ...]]],
    options: PlanOptions,
    device: DeviceFacts,
) -> list[tuple[Point, Assignment]] | None:
    """The largest batches that keep every objective when all these share; None where none do."""
    chosen, busy, needed_mib = [], 0.0, 0.0
    for tenant, rate, points in pieces:
        bounds = [(alone_ms(p.batch, rate, p.latency_ms * len(pieces)), p) for p in points]
        kept = [(worst_ms, p) for worst_ms, p in bounds if worst_ms <= tenant.slo_ms]
        if not kept:
            return None
        worst_ms, point = max(kept, key=lambda pair: pair[1].throughput_rps)
        busy += rate / point.throughput_rps
        needed_mib += process_mib(point)
        chosen.append((point, Assignment(tenant.name, point.batch, rate, worst_ms)))
    point = chosen[0][0]
    held = needed_mib <= room_mib(point.kind, point.units, device)
    return chosen if held and busy <= options.max_utilisation * (1 + ROUNDING) else None


def whole(
    tenant: Tenant, profiles: Profiles, device: DeviceFacts, options: PlanOptions, *, procs: int
) -> tuple[Point, ...]:
    """The tenant's points on all of a device, of the first kind that has any: never empty.

    Raises InfeasibleError with bound `profile` or `latency`.
    """
    points = [p for p in usable(tenant, profiles, options) if p.procs == procs]
    for kind in profiles.kinds:
        try:
            units = device.whole(kind)
        except UnsupportedError:  # cores of a simulated device, say: nothing of it was measured
            continue
        if found := tuple(p for p in points if (p.kind, p.units) == (kind, units)):
            return found
    raise InfeasibleError(
        tenant.name,
        "profile",
        f"no point of {tenant.model} on all of {device.name} with {procs} procs answers within "
        f"{tenant.slo_ms:g} ms",
    )
