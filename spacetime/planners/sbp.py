"""Squishy bin packing of Nexus (SOSP'19 §4.1 and §6.1), the baseline of gpulet: turns, no split.

As many partitions as a tenant saturates, then what is left of each tenant, busiest first, joins the
partition whose cycle it fills best, or opens one; of many it looks at the `OPEN` emptiest
(a deviation that fewer tenants than a thousand do not meet). Partitions are whole devices, or with
`units` 50 fixed halves (gpulet ATC'22 Fig. 4).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import UnsupportedError
from spacetime.plan.memory import holding, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import GpuPlan, PartitionPlan, Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.gpulet import sizes_for
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.board import KIND, WHOLE, Share, Tables
from spacetime.planners.packing.cycle import ROUNDING, Fit
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Tenant, Workload

OPEN = 128  # partitions looked at for room


@dataclass(slots=True, eq=False)
class _Node:
    """A partition and its tenants; `useful` is the time their rates need at the least."""

    shares: tuple[Share, ...]
    fit: Fit
    useful: float


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Sbp:
    """The planner of Nexus over the points of kind `mps`, on partitions of `units` percent.

    `most_tenants`: how many may take turns on one, None for as many as fit. Whether each waits for
    its own turn (Nexus) or for all is `options.turns`. Raises UnsupportedError for other units.
    """

    units: int = WHOLE
    most_tenants: int | None = None
    name: str = "sbp"

    def __post_init__(self) -> None:
        if self.units not in (WHOLE, WHOLE // 2):
            raise UnsupportedError(f"units: must be {WHOLE} or {WHOLE // 2}, got {self.units}")

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError: `profile`, `latency`, or `gpus`."""
        profiles = holding(workload, profiles, device)
        room = room_mib(KIND, WHOLE, device) * self.units / WHOLE
        tables = Tables(profiles, options, memory_mib=room)
        nodes: list[_Node] = []
        left: list[_Node] = []
        for tenant in workload.tenants:
            full, rest = self._saturate(tenant, tables)
            nodes += full
            left += rest
        sharing: list[_Node] = []
        fullest: list[_Node] = []
        for node in sorted(left, key=lambda node: -node.fit.busy):
            if self._joins(node, fullest, tables):
                continue
            sharing.append(node)
            insort(fullest, node, key=_useful)
        reasons = (_reason(node) for node in [*nodes, *sharing])
        made = Plan(
            self.name,
            device.name,
            tuple(self._gpus([*nodes, *sharing])),
            reasons=tuple(why for whys in reasons for why in whys),
        )
        return finish(made, workload, profiles, device, options)

    def _saturate(self, tenant: Tenant, tables: Tables) -> tuple[list[_Node], list[_Node]]:
        sizes_for(tenant, tenant.rate_rps, (self.units,), tables, "none")
        most = tables.saturated_rps(tenant, self.units)
        number = int(tenant.rate_rps / most * (1 + ROUNDING))
        rest = tenant.rate_rps - number * most
        full = [self._node(tenant, most, tables) for _ in range(number)]
        if rest <= ROUNDING * tenant.rate_rps:
            return full, []
        return full, [self._node(tenant, rest, tables)]

    def _node(self, tenant: Tenant, rate_rps: float, tables: Tables) -> _Node:
        shares = ((tenant, rate_rps),)
        fit = tables.fit(shares, self.units)
        assert fit is not None, "a rate up to the saturated one always fits"
        return _Node(shares, fit, tables.least_busy(tenant, rate_rps, self.units))

    def _joins(self, new: _Node, nodes: list[_Node], tables: Tables) -> bool:
        """Whether it merged with one of `nodes` (emptiest first): the one that then is busiest."""
        best: tuple[_Node, Fit] | None = None
        ceiling = tables.options.max_utilisation * (1 + ROUNDING)
        roomy = bisect_right(nodes, ceiling - new.useful, key=_useful)
        for node in nodes[: min(roomy, OPEN)]:
            shares = (*node.shares, *new.shares)
            if len(shares) > (self.most_tenants or 10**9):
                continue
            fit = tables.fit(shares, self.units)
            if fit and tables.needed_mib(shares, fit, self.units) > tables.memory_mib:
                continue
            if fit is not None and (best is None or fit.busy > best[1].busy):
                best = (node, fit)
        if best is None:
            return False
        node, node.fit = best
        nodes.remove(node)
        node.shares += new.shares
        node.useful += new.useful
        insort(nodes, node, key=_useful)
        return True

    def _gpus(self, nodes: list[_Node]) -> Iterable[GpuPlan]:
        each = WHOLE // self.units
        for gpu in range(-(-len(nodes) // each)):
            yield GpuPlan(
                gpu,
                tuple(
                    PartitionPlan(f"g{gpu}p{number}", KIND, self.units, node.fit.assignments)
                    for number, node in enumerate(nodes[gpu * each : (gpu + 1) * each])
                ),
            )


def _useful(node: _Node) -> float:
    return node.useful


def _reason(node: _Node) -> Iterable[Reason]:
    names = ", ".join(tenant.name for tenant, _ in node.shares)
    for tenant, rate in node.shares:
        how = "alone" if len(node.shares) == 1 else f"in turns, {names} in one cycle"
        yield Reason(tenant.name, f"{rate:.4g} req/s {how}, busy {node.fit.busy:.2g} of the time")
