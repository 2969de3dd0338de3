"""Where a plan lies on an opened device: each lane's units, its routes and its turns. Pure.

A planned core is a core of the device and a planned SM an SM of it, up to whole units; a percentage
of MPS is that part of the SMs. Instances of MIG are devices of their own to a process: no session
spans them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from spacetime.devices.device import Device, Units, sized
from spacetime.errors import PlanError, UnsupportedError
from spacetime.plan import GpuPlan, PartitionPlan, Plan
from spacetime.plan.deployment import Deployment, PlanLane, Served, deploy
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """One device of a plan as lanes: each lane's units, the tenants that it serves, and its turns.

    gpu: the device's number in the plan. `served[tenant][lane]` and `duty[lane]` are those of the
    deployment, by the tenants' names. notes: what was not granted as planned, and by how much.
    """

    gpu: int
    lanes: tuple[PlanLane, ...]
    units: tuple[Units, ...]
    served: Mapping[str, Mapping[int, Served]]
    duty: Mapping[int, tuple[tuple[str, int], ...]]
    notes: tuple[str, ...]

    def shares(self, tenant: str) -> dict[int, float]:
        """The planned rate of a tenant, in requests a second, on each lane that it is routed to.

        Lanes of a pool serve one queue: the rate stands at the first of them.
        """
        served = self.served[tenant]
        return {lane: on.rate_rps for lane, on in served.items() if on.rate_rps > 0}

    @property
    def keys(self) -> tuple[LaneKey, ...]:
        """Of each lane: what a lane of another plan has to have in common to be the same."""
        processes = Counter(lane.pool for lane in self.lanes if lane.pool is not None)
        return tuple(
            LaneKey(units, lane.process, processes[lane.pool] if lane.pool is not None else 1)
            for lane, units in zip(self.lanes, self.units, strict=True)
        )


class LaneKey(NamedTuple):
    """A lane by its units, the number of its process on them, and how many processes serve its
    queue."""

    units: Units
    process: int
    pooled: int


def laid_on(
    plan: Plan, workload: Workload, profiles: Profiles, device: Device, gpu: int | None = None
) -> LaneLayout:
    """Device `gpu` of the plan on an opened device; None for the only device of a plan of one.

    Raises PlanError naming the partition for what no session can drive, and UnsupportedError where
    the device has too few units.
    """
    chosen = _chosen(plan, gpu)
    if device.environments:
        raise PlanError(
            f"device {device.name}: its shares are lanes already; a plan divides a whole device"
        )
    for partition in chosen.partitions:
        _drivable(partition, device)
    names = {on.tenant for partition in chosen.partitions for on in partition.tenants}
    here = tuple(tenant for tenant in workload.tenants if tenant.name in names)
    deployed = deploy(replace(plan, gpus=(chosen,)), Workload(here), profiles)
    granted, notes = _granted(chosen.partitions, device)
    return LaneLayout(
        gpu=chosen.id,
        lanes=deployed.lanes,
        units=tuple(granted[lane.partition.id] for lane in deployed.lanes),
        served={t.name: on for t, on in zip(here, deployed.served, strict=True)},
        duty=_turns(deployed, [tenant.name for tenant in here]),
        notes=tuple(notes),
    )


def _chosen(plan: Plan, gpu: int | None) -> GpuPlan:
    numbers = [gpu_plan.id for gpu_plan in plan.gpus]
    if gpu is None and len(numbers) > 1:
        raise PlanError(
            f"gpu: the plan has devices {', '.join(map(str, numbers))}; a session is one of them, "
            "say which"
        )
    for gpu_plan in plan.gpus:
        if gpu is None or gpu_plan.id == gpu:
            return gpu_plan
    raise PlanError(f"gpu: {gpu} is none of the plan's: {', '.join(map(str, numbers))}")


def _drivable(partition: PartitionPlan, device: Device) -> None:
    if partition.kind == "mig" or partition.parent is not None:
        raise PlanError(
            f"{partition.id}: a session cannot drive partitions of kind mig; plan for kind sm, mps "
            "or cores, or open a session on each instance"
        )
    kinds = ("cores",) if device.kind == "cores" else ("sm", "mps")
    if partition.kind not in kinds:
        raise PlanError(
            f"{partition.id}: is of kind {partition.kind}, device {device.name} has "
            f"{' and '.join(kinds)}"
        )


def _granted(
    partitions: Sequence[PartitionPlan], device: Device
) -> tuple[dict[str, Units], list[str]]:
    """The units of each partition by its id, and what was not granted as planned."""
    total = sum(device.sizes)
    shares = [
        part.units * total / 100 if part.kind == "mps" else float(part.units) for part in partitions
    ]
    wanted = [max(1, round(share)) for share in shares]
    try:
        granted = sized(device, wanted)
    except UnsupportedError:  # shares that fit do not where each is rounded up by itself
        if device.kind == "cores" or math.fsum(shares) > total * (1 + 1e-9):
            raise
        granted = _apportioned(device, shares)
    notes = [
        f"partition {part.id}: {part.units} {'percent' if part.kind == 'mps' else 'SMs'} planned, "
        f"{device.size(units)} of {total} SMs granted"
        for part, units, size in zip(partitions, granted, wanted, strict=True)
        if part.kind == "mps" or device.size(units) != size
    ]
    return {part.id: units for part, units in zip(partitions, granted, strict=True)}, notes


def _apportioned(device: Device, wanted: Sequence[float]) -> list[Units]:
    """Whole units where rounding every partition up does not fit: largest remainders first."""
    units, total = list(device.units), sum(device.sizes)
    ideal = [size * len(units) / total for size in wanted]
    counts = [max(1, math.floor(share)) for share in ideal]
    if sum(counts) > len(units):
        raise UnsupportedError(
            f"lanes: {len(wanted)} partitions need {sum(counts)} units at least, device "
            f"{device.name} has {len(units)}"
        )
    for _ in range(min(len(units), math.ceil(sum(ideal))) - sum(counts)):
        short = max(range(len(counts)), key=lambda n: ideal[n] - counts[n])
        counts[short] += 1
    edges = [sum(counts[:n]) for n in range(len(counts) + 1)]
    return [tuple(units[a:b]) for a, b in pairwise(edges)]


def _turns(deployed: Deployment, names: Sequence[str]) -> dict[int, tuple[tuple[str, int], ...]]:
    """The turns of each lane's cycle, by the tenants' names: `(tenant, batch)`."""
    return {
        lane: tuple((names[tenant], batch) for tenant, batch in turns)
        for lane, turns in deployed.duty.items()
    }


def largest_batch(placement: LaneLayout) -> int:
    """The largest planned batch of any tenant on any lane, in samples."""
    return max(on.batch for lanes in placement.served.values() for on in lanes.values())


def buckets_of(placements: Iterable[LaneLayout], largest: int) -> list[int]:
    """The batch sizes to prepare: powers of two up to the first that holds `largest`, and every
    batch up to `largest` that the profiles measured."""
    powers = [2**n for n in range((largest - 1).bit_length() + 1)]
    measured = {
        bucket
        for placement in placements
        for lanes in placement.served.values()
        for served in lanes.values()
        for bucket in served.latency_ns
        if bucket <= largest
    }
    return sorted({*powers, *measured})
