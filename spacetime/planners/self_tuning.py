"""Self-tuning shares, the baseline of the first gpulet paper (after GSLICE): no turns, no knee.

There each tenant's share grows or shrinks by feedback until latency and throughput meet what is
asked, and the shares are rounded to legal sizes, max-min fair over all devices. Deviation: where
the feedback comes to rest is read from the profile (the share whose highest rate is the tenant's
rate, on straight lines between sizes) instead of being approached over many periods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.memory import holding, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.gpulet import PAIRS, Filling, Gpulet, Pairs, sizes_for
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.board import KIND, WHOLE, Board, Tables
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Tenant, Workload


@dataclass(frozen=True, slots=True)
class _Wish:
    """A part of a tenant's rate and the share of a device, in percent, that would serve it."""

    tenant: Tenant
    rate_rps: float
    percent: float


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTuning:
    """The self-tuning planner over the points of kind `mps`; `pairs` as in `Gpulet`."""

    pairs: Pairs = PAIRS
    name: str = "self-tuning"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError: `profile`, `latency`, or `gpus`."""
        rule = Gpulet(knee="none", share=False, pairs=self.pairs)
        profiles = holding(workload, profiles, device)
        tables = Tables(profiles, options, memory_mib=room_mib(KIND, WHOLE, device))
        wishes = [
            wish for tenant in workload.tenants for wish in _wishes(tenant, rule.sizes, tables)
        ]
        fewest = max(-(-len(wishes) // 2), math.ceil(sum(wish.percent for wish in wishes) / WHOLE))
        for gpus in count(options.gpus or fewest):
            try:
                board = self._place(wishes, rule, tables, gpus)
                break
            except InfeasibleError:
                # With a device for each wish every one gets what it asked.
                if options.gpus is not None or gpus >= len(wishes):
                    raise
        reasons = [
            Reason(
                wish.tenant.name, f"{wish.rate_rps:.4g} req/s tune to {wish.percent:.3g} percent"
            )
            for wish in wishes
        ]
        made = Plan(self.name, device.name, board.gpus(), reasons=tuple(reasons))
        return finish(made, workload, profiles, device, options)

    def _place(self, wishes: Sequence[_Wish], rule: Gpulet, tables: Tables, gpus: int) -> Board:
        filling = Filling(rule, Board(tables, most_tenants=1), gpus, fixed=False)
        granted = max_min_fair([wish.percent for wish in wishes], WHOLE * gpus)
        largest_first = sorted(
            zip(granted, wishes, strict=True), key=lambda pair: (-pair[0], pair[1].tenant.name)
        )
        for percent, wish in largest_first:
            size = next(size for size in rule.sizes if size >= percent * (1 - 1e-9))
            cells = filling.candidates(size)
            if not any(filling.board.put(cell, wish.tenant, wish.rate_rps) for cell in cells):
                raise InfeasibleError(
                    wish.tenant.name,
                    "gpus",
                    f"{wish.rate_rps:.4g} req/s want {wish.percent:.3g} percent and find no such "
                    f"partition on {gpus} devices",
                )
        return filling.board


def _wishes(tenant: Tenant, sizes: Sequence[int], tables: Tables) -> list[_Wish]:
    """Whole devices while the rate exceeds one, then a share for what is left."""
    sizes_for(tenant, tenant.rate_rps, sizes, tables, "none")
    curve = [(units, tables.saturated_rps(tenant, units)) for units in sizes]
    largest, most = max(curve, key=lambda at: at[1])
    wholes = int(tenant.rate_rps / most * (1 - 1e-9))
    wishes = [_Wish(tenant, most, largest)] * wholes
    rest = tenant.rate_rps - wholes * most
    return [*wishes, _Wish(tenant, rest, tuned_percent(curve, rest))]


def tuned_percent(curve: Sequence[tuple[int, float]], rate_rps: float) -> float:
    """The share whose highest rate is this one, on straight lines between the sizes of a curve.

    >>> tuned_percent([(20, 100.0), (100, 500.0)], 300.0)
    60.0
    """
    points = [(0, 0.0), *curve]
    for (below, rate_below), (units, rate) in pairwise(points):
        if rate >= rate_rps:
            part = (rate_rps - rate_below) / (rate - rate_below)
            return below + part * (units - below)
    return max(curve, key=lambda at: at[1])[0]


def max_min_fair(wishes: Sequence[float], total: float) -> list[float]:
    """What each gets of a total: all it asked for, or as much as any other that asked for more.

    >>> max_min_fair([20, 80, 100], 150)
    [20, 65.0, 65.0]
    """
    granted = [0.0] * len(wishes)
    order = sorted(range(len(wishes)), key=lambda at: wishes[at])
    for place, at in enumerate(order):
        granted[at] = min(wishes[at], total / (len(order) - place))
        total -= granted[at]
    return granted
