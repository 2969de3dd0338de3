"""Tenants of one model planned as one, so that their requests share launches. Pure.

A group of a family's tenants is stood in for by one tenant with the rate of all and the shortest
objective, whose points are the measured ones of as many tenants a launch (D-STS's super-kernels);
nothing is guessed where none was measured. Any planner plans it; then each of its partitions is
given back to the members, in proportion to their rates. Only partitions a group has to itself can
be given back: one in turns with others cannot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spacetime.plan.memory import process_mib
from spacetime.plan.plan import Assignment, PartitionPlan, Plan, Reason
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

Groups = dict[str, tuple[Tenant, ...]]  # by the name of who stands in


@dataclass(frozen=True, slots=True)
class FusedWorkload:
    """A workload in which groups are one tenant each, and the profiles that know them."""

    workload: Workload
    profiles: Profiles
    groups: Groups

    def given_back(self, plan: Plan) -> Plan | None:
        """The plan with the members in their group's place; None where a group takes turns."""
        gpus = []
        for gpu in plan.gpus:
            parts = [self._members(part) for part in gpu.partitions]
            if None in parts:
                return None
            gpus.append(replace(gpu, partitions=tuple(part for part in parts if part)))
        reasons = [
            again
            for why in plan.reasons
            for again in (self._said(why) if why.tenant in self.groups else [why])
        ]
        return replace(plan, gpus=tuple(gpus), reasons=tuple(reasons))

    def _members(self, part: PartitionPlan) -> PartitionPlan | None:
        groups = [each for each in part.tenants if each.tenant in self.groups]
        if not groups:
            return part
        if len(part.tenants) > 1:
            return None
        (whole,) = groups
        members = self.groups[whole.tenant]
        total = sum(tenant.rate_rps for tenant in members)
        shares = tuple(
            Assignment(
                tenant.name, whole.batch, whole.rate_rps * tenant.rate_rps / total, whole.latency_ms
            )
            for tenant in members
        )
        return replace(part, tenants=shares, fused=True)

    def _said(self, why: Reason) -> list[Reason]:
        members = self.groups[why.tenant]
        text = f"shares launches with {len(members) - 1} more of {members[0].model}: {why.text}"
        return [Reason(tenant.name, text) for tenant in members]


def fusions(workload: Workload, profiles: Profiles, max_procs: int) -> Iterator[FusedWorkload]:
    """The workload with its families fused: all of each, then in groups of measured sizes."""
    families = _families(workload, profiles)
    if not families:
        return
    measured = {
        point.tenants
        for model in families
        for point in profiles.fused(model)
        if point.procs <= max_procs
    }
    largest = max(map(len, families.values()))
    sizes = [largest, *sorted((size for size in measured if size < largest), reverse=True)]
    for size in sizes[:4]:
        if made := _grouped(workload, profiles, families, size):
            yield made


def _families(workload: Workload, profiles: Profiles) -> dict[str, list[Tenant]]:
    found: dict[str, list[Tenant]] = defaultdict(list)
    for tenant in workload.tenants:
        if profiles.fused(tenant.model) and tenant.largest_request == 1:
            found[tenant.model].append(tenant)
    return {model: tenants for model, tenants in found.items() if len(tenants) > 1}


def _grouped(
    workload: Workload, profiles: Profiles, families: dict[str, list[Tenant]], size: int
) -> FusedWorkload | None:
    groups: Groups = {}
    stand_ins: list[Tenant] = []
    points: dict[str, tuple[Point, ...]] = {}
    for model, tenants in families.items():
        # Those of like objectives together: the shortest of a group is that of all.
        order = sorted(tenants, key=lambda tenant: (tenant.slo_ms, tenant.name))
        for first in range(0, len(order), size):
            members = tuple(order[first : first + size])
            sizes = _common(members)
            name = f"{model} of {len(members)}"
            if len(members) < 2 or sizes is None:
                continue
            points.setdefault(name, tuple(_points(profiles, model, len(members), name)))
            if points[name]:
                stands = _stand_in(f"{name} from {members[0].name}", name, members, sizes)
                groups[stands.name] = members
                stand_ins.append(stands)
    if not groups:
        return None
    gone = {tenant.name for members in groups.values() for tenant in members}
    rest = tuple(tenant for tenant in workload.tenants if tenant.name not in gone)
    known = Profiles((*profiles.points, *(p for of in points.values() for p in of)))
    return FusedWorkload(Workload((*rest, *stand_ins)), known, groups)


def _stand_in(name: str, model: str, members: Sequence[Tenant], sizes: tuple[int, ...]) -> Tenant:
    return Tenant(
        name, model,
        slo_ms=min(tenant.slo_ms for tenant in members),
        rate_rps=sum(tenant.rate_rps for tenant in members),
        batch_sizes=sizes,
    )  # fmt: skip


def _common(members: Sequence[Tenant]) -> tuple[int, ...] | None:
    """The batch sizes all may have (empty: any); None where there is none."""
    asked = [set(tenant.batch_sizes) for tenant in members if tenant.batch_sizes]
    if not asked:
        return ()
    return tuple(sorted(set.intersection(*asked))) or None


def _points(profiles: Profiles, model: str, members: int, name: str) -> Iterator[Point]:
    """What was measured of launches that hold so many members, as points of one tenant."""
    every = {(p.kind, p.units, p.procs, p.batch) for p in profiles.fused(model)}
    for kind, units, procs, batch in sorted(every):
        point = profiles.at_fused(model, kind, units, batch, tenants=members, procs=procs)
        if point is not None and point.batch == batch and point.tenants > 1:
            needed = process_mib(point, members) or None
            yield replace(point, model=name, tenants=1, memory_mib=needed)
