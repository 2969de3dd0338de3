"""`spacetime`: our own planner. Space and time together, never worse than the papers' planners.

It makes every plan that applies (the papers', what people do today, and for workloads small enough
the exact one), lets each give up devices whose tenants fit into the idle units and the idle time of
the others, and keeps the one of fewest devices; among those, of fewest stranded units, then of most
headroom. A demand that fits a small partition with room to grow tenfold gets that partition. What
it weighs is what the checker checks, so its plans are sound by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.check import check_plan
from spacetime.plan.demand import lower_bound
from spacetime.plan.memory import holding
from spacetime.plan.options import Planner, PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import require_gpus
from spacetime.planners.packing.bounds import explained
from spacetime.planners.packing.consolidate import consolidate
from spacetime.planners.packing.fuse import fusions
from spacetime.planners.packing.little import shared
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload

FACTORS = (1.0, 0.5)  # of an objective a launch may take: tight, and with room for waiting
START_FROM = ("parvagpu", "gpulet", "sbp", "mig-only", "whole-gpu")
# Taken as they are, and only where they need fewer devices than all others.
BESIDE = ("greedy", "self-tuning", "paris", "homogeneous", "time-only", "mps-default")
MOST_IMPROVED = 2  # of the plans made, those of fewest devices
MANY = 300  # tenants, of whom one plan takes seconds to improve


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceTime:
    """`nodes`: how much `exact` may search, which starts from up to `most_exact` tenants."""

    nodes: int = 1000
    most_exact: int = 60
    name: str = "spacetime"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`."""
        best = self.plans(workload, profiles, device, options)[0]
        best = explained(best, workload, profiles, device, options)
        require_gpus(best, best.lower_bound_gpus, options)
        return best

    def plans(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> list[Plan]:
        """Every sound plan that was weighed, the best first. Raises InfeasibleError for none."""
        profiles = holding(workload, profiles, device)
        unlimited = replace(options, gpus=None)
        refusals: list[InfeasibleError] = []
        weighed = self._weighed(workload, profiles, device, unlimited, refusals=refusals)
        for fused in fusions(workload, profiles, options.max_procs):
            known = fused.workload, fused.profiles
            for plan in self._weighed(*known, device, unlimited, groups=frozenset(fused.groups)):
                if (found := fused.given_back(plan)) is not None:
                    weighed.append(found)
        if (little := shared(workload, profiles, device, unlimited)) is not None:
            weighed.append(little)
        if not weighed:
            # That a planner wants another kind of partition says little about the demand.
            raise next((each for each in refusals if each.bound != "profile"), refusals[0])
        sound = [
            plan
            for plan in dict.fromkeys(weighed)
            if not check_plan(plan, workload, profiles, device, unlimited)
        ]
        sound.sort(key=lambda plan: (
            len(plan.gpus), plan is not little, plan.planner in BESIDE, _stranded(plan, device),
            -_free(plan),
        ))  # fmt: skip
        # The bound of `exact` is for one tenant a partition, which these need not keep to.
        bound = lower_bound(workload, profiles, device, options)
        return [self._signed(plan, bound, len(sound), workload) for plan in sound]

    def _signed(self, plan: Plan, bound: int, among: int, workload: Workload) -> Plan:
        whence = tuple(
            Reason(tenant.name, f"begun from {plan.planner}, one of {among} plans weighed")
            for tenant in workload.tenants
        )
        return replace(
            plan, planner=self.name, lower_bound_gpus=bound, reasons=(*plan.reasons, *whence)
        )

    def _weighed(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions,
        *, refusals: list[InfeasibleError] | None = None, groups: frozenset[str] = frozenset(),
    ) -> list[Plan]:  # fmt: skip
        """Plans made, and the best of them on fewer devices; `groups` take no turns with others."""
        refused = [] if refusals is None else refusals
        made = list(self._made(workload, profiles, device, options, refused))
        made.sort(key=lambda plan: len(plan.gpus))
        most = MOST_IMPROVED if len(workload.tenants) <= MANY else 1
        alone = [p for p in made if all(len(q.tenants) == 1 for g in p.gpus for q in g.partitions)]
        improved = [
            consolidate(plan, workload, profiles, device, options, apart=groups)
            for plan in (alone if groups else made)[:most]
        ]
        if not groups and len(workload.tenants) <= MANY:
            made += self._made(workload, profiles, device, options, refused, begin=BESIDE)
        return [*improved, *made]

    def _made(
        self,
        workload: Workload,
        profiles: Profiles,
        device: DeviceFacts,
        options: PlanOptions,
        refusals: list[InfeasibleError],
        *,
        begin: Sequence[str] = START_FROM,
    ) -> Iterator[Plan]:
        names: list[tuple[str, dict[str, float]]] = [(name, {}) for name in begin]
        few = len(workload.tenants) <= self.most_exact
        if few and begin is START_FROM and solves():
            names += [("exact", {"nodes": self.nodes, "slo_factor": f}) for f in FACTORS]
        for name, choices in names:
            found = _attempt(planner(name, **choices), workload, profiles, device, options)
            if isinstance(found, Plan):
                yield found
            else:
                refusals.append(found)


def solves() -> bool:
    """Whether this installation can search exactly: the extra `plan` brings scipy."""
    try:
        import_module("spacetime.planners.exact")
    except ImportError:
        return False
    return True


def _attempt(
    other: Planner, workload: Workload, profiles: Profiles, device: DeviceFacts,
    options: PlanOptions,
) -> Plan | InfeasibleError:  # fmt: skip
    try:
        return other.plan(workload, profiles, device, options)
    except InfeasibleError as refusal:
        return refusal


def _stranded(plan: Plan, device: DeviceFacts) -> float:
    """Devices' worth of units in no partition."""
    used = sum(
        partition.units / device.whole(partition.kind)
        for gpu in plan.gpus
        for partition in gpu.partitions
        if partition.parent is None
    )
    return round(len(plan.gpus) - used, 9)


def _free(plan: Plan) -> float:
    return plan.headroom if plan.headroom is not None else 0.0
