"""Empties devices of a plan one by one into what the others have left: in space and in time. Pure.

The tenants of the least loaded device move, largest rate first: to partitions of theirs that are
not yet as busy as allowed, to units that nothing uses, and into cycles with tenants of other
partitions. A device goes only if everything on it found a place; so no plan gets worse. Plans of
many devices are worked on a stretch at a time, so that the effort grows with their number, not with
its square; then the emptiest of all stretches once more together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.plan.demand import ROUNDING, ceiling_rps, floor_rps, serves, usable
from spacetime.plan.memory import held, partition_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.plan.timing import alone_ms, busy, loads
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.cycle import Demand, filled, together
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

Devices = tuple[tuple[PartitionPlan, ...], ...]
MOST_TRIED = 8  # devices before giving up: those left are loaded more
STRETCH = 160  # devices


@dataclass(frozen=True, slots=True)
class _Room:
    """What moving is judged by; the plan itself is passed along, device by device."""

    tenants: dict[str, Tenant]
    models: dict[str, str]
    profiles: Profiles
    device: DeviceFacts
    options: PlanOptions
    apart: frozenset[str] = frozenset()
    # By identity, kept alive here: partitions are large to hash and asked for again and again.
    _loads: dict[int, tuple[PartitionPlan, float]] = field(default_factory=dict)
    _shared: dict[int, tuple[PartitionPlan, float, list[Demand]]] = field(default_factory=dict)
    _demands: dict[tuple[str, float, str, int], Demand] = field(default_factory=dict)
    _usable: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    _whole: dict[str, int] = field(default_factory=dict)

    def demand(self, name: str, rate_rps: float, kind: str, units: int) -> Demand:
        """A tenant as one of several in turns; without points where it cannot be."""
        key = (name, rate_rps, kind, units)
        if (found := self._demands.get(key)) is None:
            tenant = self.tenants[name]
            measured = self.profiles.batches(tenant.model, kind, units, 1)
            together = name not in self.apart
            points = tuple(p for p in measured if together and tenant.takes(p.batch))
            found = self._demands[key] = Demand(tenant, rate_rps, points)
        return found

    def demands(self, partition: PartitionPlan) -> tuple[float, list[Demand]]:
        """A partition's tenants in turns, and how busy they are at the least in any cycle."""
        if (found := self._shared.get(id(partition))) is None:
            of = [
                self.demand(assignment.tenant, assignment.rate_rps, partition.kind, partition.units)
                for assignment in partition.tenants
            ]
            least = sum(demand.least_busy for demand in of)
            found = self._shared[id(partition)] = (partition, least, of)
        return found[1], found[2]

    def usable(self, tenant: Tenant) -> tuple[Point, ...]:
        """The tenant's points."""
        if tenant.name not in self._usable:
            self._usable[tenant.name] = usable(tenant, self.profiles, self.options)
        return self._usable[tenant.name]

    def full(self, parts: Sequence[PartitionPlan], point: Point) -> bool:
        """Whether a device certainly has no room for a partition more; False says nothing."""
        if point.kind not in self._whole:
            self._whole[point.kind] = self.device.whole(point.kind)
        room = self._whole[point.kind] - point.units
        return parts[0].kind != point.kind or sum(part.units for part in parts) > room

    def stating(self, partition: PartitionPlan) -> PartitionPlan:
        """The partition with the memory it needs, where that is known."""
        if not self.profiles.states_memory:
            return partition
        points = [
            self.profiles.at(
                self.models[assignment.tenant],
                partition.kind,
                partition.units,
                assignment.batch,
                partition.procs,
            )
            for assignment in partition.tenants
        ]
        return replace(partition, memory_mib=partition_mib(partition, points) or None)

    def load(self, partition: PartitionPlan) -> float:
        """How busy a partition is; asked for each of them again and again."""
        if (kept := self._loads.get(id(partition))) is None:
            found = loads(partition, self.profiles, self.models, turns=self.options.turns)
            kept = self._loads[id(partition)] = (partition, busy(partition, found))
        return kept[1]


def consolidate(
    plan: Plan,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
    *,
    apart: frozenset[str] = frozenset(),
) -> Plan:
    """The same tenants on as few of the plan's devices as this finds.

    Plans with nested or fused partitions stay as they are. The tenants `apart` take no turns.
    """
    if any(p.parent is not None or p.fused for gpu in plan.gpus for p in gpu.partitions):
        return plan
    tenants = {tenant.name: tenant for tenant in workload.tenants}
    models = {name: tenant.model for name, tenant in tenants.items()}
    room = _Room(tenants, models, profiles, device, options, apart)
    devices: Devices = tuple(gpu.partitions for gpu in plan.gpus)
    moved: set[str] = set()
    begun = 0
    while begun != len(devices):
        begun = len(devices)
        devices = tuple(
            chain.from_iterable(
                _fewer(devices[first : first + STRETCH], room, moved)
                for first in range(0, begun, STRETCH)
            )
        )
        if begun <= STRETCH:
            break
        devices = tuple(sorted(devices, key=lambda parts: sum(map(room.load, parts))))
    if len(devices) == len(plan.gpus):
        return plan
    reasons = [why for why in plan.reasons if why.tenant not in moved]
    reasons += [
        Reason(name, "moved from a device that its neighbours' idle units and time made needless")
        for name in sorted(moved)
    ]
    gpus = tuple(GpuPlan(n, _named(n, parts)) for n, parts in enumerate(devices))
    fewest = Plan(plan.planner, plan.device, gpus, None, None, tuple(reasons))
    return finish(fewest, workload, profiles, device, options)


def refused_at(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Reason:
    """Whose rate has no place if the least loaded device goes, and by how much it is refused."""
    tenants = {tenant.name: tenant for tenant in workload.tenants}
    models = {name: tenant.model for name, tenant in tenants.items()}
    room = _Room(tenants, models, profiles, device, options)
    devices: Devices = tuple(gpu.partitions for gpu in plan.gpus)
    least = min(range(len(devices)), key=lambda n: sum(map(room.load, devices[n])))
    left: Devices = (*devices[:least], *devices[least + 1 :])
    leaving = [assignment for partition in devices[least] for assignment in partition.tenants]
    for assignment in sorted(leaving, key=lambda a: -a.rate_rps):
        found = _placed(assignment.tenant, assignment.rate_rps, left, room)
        if found is None:
            return Reason(
                assignment.tenant, f"one device fewer: {_nearest(assignment, left, room)}"
            )
        left = found
    return Reason(leaving[0].tenant, "one device fewer would do; spacetime plans so")


def _nearest(assignment: Assignment, devices: Devices, room: _Room) -> str:
    """The place that would refuse it by least, and the bound that refuses."""
    tried = []
    for partition in (p for parts in devices for p in parts if not p.fused):
        busy_already, others = room.demands(partition)
        own = room.demand(assignment.tenant, assignment.rate_rps, partition.kind, partition.units)
        if not own.points:
            continue
        used = (busy_already + own.least_busy) / room.options.max_utilisation
        duty_ms = min(demand.longest_ms for demand in (*others, own))
        turns_ms = sum(demand.quickest_ms for demand in (*others, own))
        name = "its ceiling, utilisation bound"
        if used <= 1 and duty_ms > 0:
            # Batches grow with the cycle, so at best its turns take what the shortest launches do.
            used = max(1.0, turns_ms / duty_ms)
            name = "the cycle its tenants' objectives allow, SLO bound"
        elif used <= 1:
            used, name = 2 * own.quickest_ms / own.tenant.slo_ms, "its objective, SLO bound"
        tried.append((used, partition.id, name))
    if not tried:
        return f"{assignment.rate_rps:.4g} req/s find no partition it has a profile for"
    used, name, bound = min(tried)
    amount = f"{used:.2f}" if used > 1 else "more than 1"
    return f"{assignment.rate_rps:.4g} req/s would need {amount} of {name}: {bound}"


def _fewer(devices: Devices, room: _Room, moved: set[str]) -> Devices:
    """What is left of a stretch of devices; who moved is added to `moved`."""
    while (found := _without_one(devices, room)) is not None:
        gone, fewer = found
        moved |= {
            assignment.tenant for partition in devices[gone] for assignment in partition.tenants
        }
        devices = fewer
    return devices


def _without_one(devices: Devices, room: _Room) -> tuple[int, Devices] | None:
    """Which device goes, tried from the least loaded on, and what is left; None where none can."""
    if len(devices) < 2:
        return None
    order = sorted(range(len(devices)), key=lambda n: sum(map(room.load, devices[n])))
    for n in order[:MOST_TRIED]:
        left: Devices | None = (*devices[:n], *devices[n + 1 :])
        leaving = [assignment for partition in devices[n] for assignment in partition.tenants]
        for assignment in sorted(leaving, key=lambda a: -a.rate_rps):
            left = (
                _placed(assignment.tenant, assignment.rate_rps, left, room)
                if left is not None
                else None
            )
        if left is not None:
            return n, left
    return None


def _placed(tenant: str, rate_rps: float, devices: Devices, room: _Room) -> Devices | None:
    """The devices with `rate_rps` more of a tenant; None where there is no place for all of it."""
    devices, rate_rps = _topped_up(tenant, rate_rps, devices, room)
    while rate_rps > ROUNDING:
        found = next(_in_time(tenant, rate_rps, devices, room), None)
        if found is not None:
            return found
        added = _in_space(tenant, rate_rps, devices, room)
        if added is None:
            return None
        devices, rate_rps = added
    return devices


def _topped_up(
    tenant: str, rate_rps: float, devices: Devices, room: _Room
) -> tuple[Devices, float]:
    """More for partitions that are the tenant's own already; what is left over."""
    made = []
    for parts in devices:
        kept = list(parts)
        for i, partition in enumerate(parts):
            (each, *others) = partition.tenants
            if (
                others
                or partition.fused
                or each.tenant != tenant
                or each.duty_ms is not None
                or rate_rps <= 0
            ):
                continue
            point = _point(each, partition, room)
            more = min(rate_rps, ceiling_rps(point, room.options) - each.rate_rps)
            if each.batch == point.batch and more > 0:
                kept[i] = _own(partition, room.tenants[tenant], point, each.rate_rps + more)
                rate_rps -= more
        made.append(tuple(kept))
    return tuple(made), rate_rps


def _in_time(tenant: str, rate_rps: float, devices: Devices, room: _Room) -> Iterator[Devices]:
    """All of the rate in turns with the tenants of one partition, the most loaded first."""
    places = [
        (least, room.load(partition), n, i)
        for n, parts in enumerate(devices)
        for i, partition in enumerate(parts)
        if not partition.fused
        and (least := room.demands(partition)[0]) < room.options.max_utilisation
    ]
    places.sort(key=lambda at: (-at[1], at[2:]))
    for least, _, n, i in places:
        partition = devices[n][i]
        newcomer = room.demand(tenant, rate_rps, partition.kind, partition.units)
        if least + newcomer.least_busy > room.options.max_utilisation:
            continue
        if any(assignment.tenant == tenant for assignment in partition.tenants):
            continue
        demands = [*room.demands(partition)[1], newcomer]
        fit = together(demands, room.options) or filled(demands, room.options)
        if fit is None:
            continue
        shared = room.stating(replace(partition, tenants=fit.assignments, procs=1))
        parts = (*devices[n][:i], shared, *devices[n][i + 1 :])
        if held(parts, room.device):
            yield _changed(devices, n, parts)


def _in_space(
    tenant: str, rate_rps: float, devices: Devices, room: _Room
) -> tuple[Devices, float] | None:
    """As much of the rate as one partition of unused units serves; what is left over.

    The fewest units that serve all of it; else the most of it.
    """
    who = room.tenants[tenant]
    best: tuple[tuple[float, ...], int, tuple[PartitionPlan, ...], float] | None = None
    for point in room.usable(who):
        share = min(rate_rps, ceiling_rps(point, room.options))
        if share < floor_rps(point, who.slo_ms) or not serves(
            point, share, who.slo_ms, room.options
        ):
            continue
        rest = rate_rps - share
        rank = (rest, point.units, -point.throughput_rps)
        if best is not None and rank >= best[0]:
            continue
        part = PartitionPlan("", point.kind, point.units, (), None, point.procs)
        own = room.stating(_own(part, who, point, share))
        for n, parts in enumerate(devices):
            if room.full(parts, point):
                continue
            arranged = _arranged((*parts, own), room.device)
            if arranged is not None:
                best = (rank, n, arranged, rest)
                break
    return None if best is None else (_changed(devices, best[1], best[2]), best[3])


def _arranged(
    parts: Sequence[PartitionPlan], device: DeviceFacts
) -> tuple[PartitionPlan, ...] | None:
    """The partitions on one device, with legal starts; None where they do not fit."""
    kinds = {partition.kind for partition in parts}
    if len(kinds) > 1 or not held(parts, device):
        return None
    if kinds != {"mig"}:
        return tuple(parts) if sum(p.units for p in parts) <= device.whole(*kinds) else None
    starts = mig.arrange(tuple(partition.units for partition in parts), device.geometry)
    if starts is None:
        return None
    return tuple(replace(p, start=start) for p, start in zip(parts, starts, strict=True))


def _own(partition: PartitionPlan, tenant: Tenant, point: Point, rate_rps: float) -> PartitionPlan:
    worst_ms = alone_ms(point.batch, rate_rps, point.latency_ms)
    return replace(partition, tenants=(Assignment(tenant.name, point.batch, rate_rps, worst_ms),))


def _point(assignment: Assignment, partition: PartitionPlan, room: _Room) -> Point:
    model = room.tenants[assignment.tenant].model
    found = room.profiles.at(
        model, partition.kind, partition.units, assignment.batch, partition.procs
    )
    assert found is not None, "a plan is checked before it is improved"
    return found


def _changed(devices: Devices, n: int, parts: tuple[PartitionPlan, ...]) -> Devices:
    return (*devices[:n], parts, *devices[n + 1 :])


def _named(n: int, parts: Sequence[PartitionPlan]) -> tuple[PartitionPlan, ...]:
    return tuple(replace(partition, id=f"g{n}p{i}") for i, partition in enumerate(parts))
