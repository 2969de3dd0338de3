"""What the scheduler is told of a plan: lanes, latencies, routes, duty cycles. Pure.

How a partition becomes lanes follows from how its tenants share it (`plan.plan`): a tenant alone
has a lane for each of the partition's processes, which serve one queue (a pool); tenants that take
turns, or whose processes the device slices in time, share one lane; tenants side by side have a
lane each. A tenant of rate 0 runs on lanes that are there, when the others leave room.

A launch takes what the profile says of its batch *with all processes of the partition busy*, so a
partition of several processes is judged on the safe side. A plan falls into *pieces* that share no
tenant; each can be simulated on its own, with the same result as all together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from spacetime.errors import PlanError
from spacetime.plan import Assignment, PartitionPlan, Plan
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.units import ns_from_ms
from spacetime.workload.workload import Tenant, Workload


class PlanLane(NamedTuple):
    """One process of a partition: an ordered execution path on device `gpu` of the plan.

    Lanes of one `pool` (the number of its first lane) serve one queue.
    """

    gpu: int
    partition: PartitionPlan
    process: int
    pool: int | None

    def __str__(self) -> str:
        size = f"{self.partition.kind} {self.partition.units}"
        return f"gpu {self.gpu} {self.partition.id} ({size}) process {self.process}"


@dataclass(frozen=True, slots=True)
class Served:
    """A tenant on one lane: batches up to `batch`, latency by bucket, and the planned rate.

    The rate of a pool is that of its first lane. A tenant that no rate is planned for has 1 where
    it is to be routed.
    """

    batch: int
    rate_rps: float
    latency_ns: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Lanes and tenants, by number, that share nothing with the rest of the plan."""

    lanes: tuple[int, ...]
    tenants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan as lanes; `served[tenant][lane]`, `duty[lane]`: (tenant, batch) turns of its cycle.

    `families[tenant]`: the first tenant of those it shares launches with; itself for none.
    """

    lanes: tuple[PlanLane, ...]
    served: tuple[Mapping[int, Served], ...]
    duty: Mapping[int, tuple[tuple[int, int], ...]]
    families: tuple[int, ...]

    def pieces(self, *, devices_apart: bool = True) -> tuple[Piece, ...]:
        """The plan's independent pieces, in order of their first tenant.

        Not `devices_apart`: what shares a device is one piece, for its lanes slow each other.
        """
        owner = list(range(len(self.lanes)))

        def find(lane: int) -> int:
            while owner[lane] != lane:
                owner[lane] = lane = owner[owner[lane]]
            return lane

        for lanes in self.served:
            first, *rest = map(find, lanes)
            for lane in rest:
                owner[find(lane)] = find(first)
        if not devices_apart:
            first_of: dict[int, int] = {}
            for lane, each in enumerate(self.lanes):
                owner[find(lane)] = find(first_of.setdefault(each.gpu, lane))
        tenants: dict[int, list[int]] = defaultdict(list)
        for number, lanes in enumerate(self.served):
            tenants[find(next(iter(lanes)))].append(number)
        members: dict[int, list[int]] = defaultdict(list)
        for lane in range(len(self.lanes)):
            members[find(lane)].append(lane)
        return tuple(Piece(tuple(members[root]), tuple(of)) for root, of in tenants.items())


def deploy(plan: Plan, workload: Workload, profiles: Profiles) -> Deployment:
    """The plan as the scheduler sees it. It need not be sound: unsound plans run badly.

    Raises PlanError for another device's profiles, a tenant that is unknown or not served, and a
    batch no point covers.
    """
    if plan.device != profiles.device:
        raise PlanError(f"device: the plan is for {plan.device}, the profiles {profiles.device}")
    numbers = {tenant.name: number for number, tenant in enumerate(workload.tenants)}
    lanes: list[PlanLane] = []
    served: list[dict[int, Served]] = [{} for _ in workload.tenants]
    duty: dict[int, tuple[tuple[int, int], ...]] = {}
    for gpu in plan.gpus:
        for part in gpu.partitions:
            for assignment in part.tenants:
                if assignment.tenant not in numbers:
                    raise PlanError(
                        f"{part.id}: {assignment.tenant} is not a tenant of the workload"
                    )
            first = len(lanes)
            placed = list(_placed(part))
            count = 1 + max((lane for lane, _, _ in placed), default=-1)
            pool = first if (part.fused or len(part.sharers) <= 1) and count > 1 else None
            lanes += [PlanLane(gpu.id, part, process, pool) for process in range(count)]
            for lane, each, rate_rps in placed:
                number = numbers[each.tenant]
                found = _latencies(part, each, workload.tenants[number], profiles)
                new = Served(max(found), rate_rps, found)
                served[number][first + lane] = _both(served[number].get(first + lane), new)
            if cycle := [
                assignment for assignment in part.tenants if assignment.duty_ms is not None
            ]:
                duty[first] = tuple(
                    (numbers[assignment.tenant], assignment.batch) for assignment in cycle
                )
    for tenant, on in zip(workload.tenants, served, strict=True):
        if not on:
            raise PlanError(f"tenant {tenant.name}: the plan serves it nowhere")
    families = _families(plan, numbers)
    return Deployment(tuple(lanes), tuple(_padded(on) for on in served), duty, families)


def _families(plan: Plan, numbers: dict[str, int]) -> tuple[int, ...]:
    """Of each tenant the first it shares launches with. Raises PlanError unless always the same."""
    beside = plan.companions()
    for name, sets in beside.items():
        if len(sets) > 1:
            raise PlanError(f"{name}: shares launches with others in some partitions only")
    return tuple(
        min(numbers[other] for names in beside[name] for other in names) for name in numbers
    )


def _placed(part: PartitionPlan) -> Iterator[tuple[int, Assignment, float]]:
    """Each assignment with a lane of the partition it runs on and its rate there."""
    alone = part.fused or len(part.sharers) <= 1
    if alone:
        for placed in part.sharers:
            for process in range(part.procs):
                yield process, placed, placed.rate_rps if process == 0 else 0.0
    else:
        side_by_side = part.procs > 1
        for number, sharer in enumerate(part.sharers):
            yield (number if side_by_side else 0), sharer, sharer.rate_rps
    for assignment in part.tenants:
        if assignment not in part.sharers:
            for process in range(part.procs if alone else 1):
                yield process, assignment, 1.0 if process == 0 else 0.0


def _latencies(
    part: PartitionPlan, assignment: Assignment, tenant: Tenant, profiles: Profiles
) -> dict[int, int]:
    model = tenant.model
    if part.fused:
        return _fused_latencies(part, assignment, model, profiles)
    # A percentage of a MIG instance is another amount than of the device: nothing was measured.
    nested = part.parent is not None
    largest = (
        None if nested else profiles.at(model, part.kind, part.units, assignment.batch, part.procs)
    )
    if largest is None:
        raise PlanError(
            f"{assignment.tenant} on {part.id}: no point of {model} covers batch "
            f"{assignment.batch} with {part.procs} procs on {part.kind} {part.units}"
            + (" inside another" * nested)
        )
    measured = profiles.batches(model, part.kind, part.units, part.procs)
    found = {p.batch: ns_from_ms(p.latency_ms) for p in measured if p.batch < assignment.batch}
    found[assignment.batch] = ns_from_ms(largest.latency_ms)
    for point in measured:  # a request is launched whole, wherever its size sends it
        if max(found) < min(tenant.largest_request, point.batch):
            found[point.batch] = ns_from_ms(point.latency_ms)
    most, times = max(found), 1
    while most * times < tenant.largest_request:  # what does not fit goes in several launches
        times *= 2
        found[most * times] = times * found[most]
    return found


def _fused_latencies(
    part: PartitionPlan, assignment: Assignment, model: str, profiles: Profiles
) -> dict[int, int]:
    """By inputs a launch; one of fewer is padded to a larger that answers sooner, if there is."""
    members, at = len(part.tenants), (model, part.kind, part.units)
    sizes = {p.batch for p in (*profiles.of(model), *profiles.fused(model))} | {assignment.batch}
    found: dict[int, int] = {}
    for batch in sorted((size for size in sizes if size <= assignment.batch), reverse=True):
        point = profiles.at_fused(*at, batch, tenants=members, procs=part.procs)
        if part.parent is not None or (point is None and batch == assignment.batch):
            raise PlanError(
                f"{assignment.tenant} on {part.id}: no point of {model} covers batch "
                f"{assignment.batch} with {members} tenants and {part.procs} procs on "
                f"{part.kind} {part.units}"
            )
        if point is not None:
            least = min(found.values(), default=ns_from_ms(point.latency_ms))
            found[batch] = min(least, ns_from_ms(point.latency_ms))
    return found


def _both(one: Served | None, other: Served) -> Served:
    """A tenant named twice on one lane."""
    if one is None:
        return other
    larger = one if one.batch >= other.batch else other
    return Served(larger.batch, one.rate_rps + other.rate_rps, larger.latency_ns)


def _padded(on: dict[int, Served]) -> dict[int, Served]:
    """Every lane names every smaller bucket of the others, at the cost of its own next larger."""
    buckets = sorted({bucket for each in on.values() for bucket in each.latency_ns})
    return {
        lane: Served(
            each.batch,
            each.rate_rps,
            {
                bucket: each.latency_ns[min(own for own in each.latency_ns if own >= bucket)]
                for bucket in buckets
                if bucket <= each.batch
            },
        )
        for lane, each in on.items()
    }


def own_policy(plan: Plan, workload: Workload) -> Policy:
    """The policy a plan is made for: the one it names, else its routes, batches and cycles.

    A request of PARIS is a batch already and runs by itself. Where some tenant's are of one input
    (it has no `batch_mix`), those that wait share a launch instead, up to the planned batch.
    """
    if plan.policy is not None:
        named = Policy.named(plan.policy)
        single = named.batch == "one" and not all(each.batch_mix for each in workload.tenants)
        return replace(named, batch="greedy") if single else named
    cycles = any(assignment.duty_ms is not None for _, _, assignment in plan)
    return Policy(route="weighted", order="duty" if cycles else "fifo", batch="greedy", lend=False)
