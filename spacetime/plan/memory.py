"""Device memory that partitions need and have, as far as profiles state it. Pure.

Each process holds the weights and activations of its tenant, whoever's turn it is; tenants that
share launches are in one process, which holds the weights of all. A MIG instance has memory of its
own; partitions of other kinds share the device's, and those nested in an instance share that. What
no point states counts as nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spacetime.devices.facts import MIB_PER_GIB, DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.plan import GpuPlan, PartitionPlan
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Workload

ROUNDING = 1e-9  # relative: sums of fractions are not exact


@dataclass(frozen=True, slots=True)
class Excess:
    """More memory than there is: of partitions `parts`, in the partition or device `where`."""

    where: str
    parts: tuple[PartitionPlan, ...]
    needed_mib: float
    room_mib: float

    def __str__(self) -> str:
        names = sorted({assignment.tenant for part in self.parts for assignment in part.tenants})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return f"{shown} need {self.needed_mib:,.0f} MiB, there are {self.room_mib:,.0f}"


def room_mib(kind: str, units: int, device: DeviceFacts) -> float:
    """The memory a partition can use if it is alone; 0 for a size the device lacks."""
    if kind != "mig":
        return device.memory_gib * MIB_PER_GIB
    try:
        return device.mig_profile(units).memory_mib
    except UnsupportedError:
        return 0.0


def process_mib(point: Point | None, members: int = 1) -> float:
    """What one process at a point needs where `members` tenants of a family are in it."""
    if point is None or point.memory_mib is None:
        return 0.0
    # More members than share one launch: their weights at no less than what each takes there.
    return point.memory_mib * max(1.0, members / point.tenants)


def partition_mib(partition: PartitionPlan, points: Sequence[Point | None]) -> float:
    """What a partition needs whose assignments run at `points`, one each."""
    if partition.fused and points:
        return partition.procs * process_mib(points[0], len(points))
    # Each process of a tenant alone can serve those of rate 0 as well.
    each = partition.procs if len(partition.sharers) <= 1 else 1
    return each * sum(process_mib(point) for point in points)


def excesses(
    gpu: GpuPlan, needed_mib: Mapping[str, float], device: DeviceFacts
) -> Iterator[Excess]:
    """Where a device's partitions, by id in need of so much, exceed what there is."""
    by_id = {part.id: part for part in gpu.partitions}
    sharing: dict[str, list[PartitionPlan]] = defaultdict(list)
    for part in gpu.partitions:
        outer = by_id.get(part.parent) if part.parent is not None else None
        own = part.id if part.kind == "mig" else f"gpu {gpu.id}"
        sharing[own if outer is None else outer.id].append(part)
    for where, parts in sharing.items():
        holder = by_id.get(where)
        room = room_mib(holder.kind, holder.units, device) if holder else room_mib("", 0, device)
        needed = sum(needed_mib.get(part.id, 0.0) for part in parts)
        if needed > room * (1 + ROUNDING):
            yield Excess(where, tuple(part for part in parts if part.tenants), needed, room)


def held(parts: Sequence[PartitionPlan], device: DeviceFacts) -> bool:
    """Whether partitions of one kind, each stating its need, are within a device's memory."""
    needs = [part.memory_mib or 0.0 for part in parts]
    if not any(needs):
        return True
    rooms = [room_mib(part.kind, part.units, device) * (1 + ROUNDING) for part in parts]
    if parts[0].kind == "mig":
        return all(need <= room for need, room in zip(needs, rooms, strict=True))
    return sum(needs) <= rooms[0]


def fits(point: Point, device: DeviceFacts, *, share: bool = False) -> bool:
    """Whether a partition alone on its device holds all processes of a point.

    With `share` it has only its units' share of the device's memory.
    """
    room = room_mib(point.kind, point.units, device)
    if share and point.kind != "mig":
        room *= point.units / device.whole(point.kind)
    return point.procs * process_mib(point) <= room * (1 + ROUNDING)


def holding(workload: Workload, profiles: Profiles, device: DeviceFacts) -> Profiles:
    """The profiles without the points whose processes no partition of their size can hold.

    Raises InfeasibleError with bound `memory` for a tenant that is left with none.
    """
    if not profiles.states_memory:
        return profiles
    kept = tuple(point for point in profiles.points if fits(point, device))
    if len(kept) == len(profiles):
        return profiles
    models = {point.model for point in kept}
    for tenant in workload.tenants:
        lost = [point for point in profiles.points if point.model == tenant.model]
        if lost and tenant.model not in models:
            least = min(lost, key=lambda point: point.procs * process_mib(point))
            raise InfeasibleError(
                tenant.name,
                "memory",
                f"{least.procs} process{'es' * (least.procs > 1)} at batch {least.batch} on "
                f"{least.kind} {least.units} need {least.procs * process_mib(least):,.0f} MiB, it "
                f"has {room_mib(least.kind, least.units, device):,.0f}",
            )
    return Profiles(kept) if kept else profiles
