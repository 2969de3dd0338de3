"""Greedy best fit, a baseline of the gpulet paper (ATC'22 §6): sizes by rate, nobody shares.

Each tenant gets the smallest partition that serves its rate, on the tightest place there is; whole
devices while its rate is above one. No turns, no knee, no interference.
"""

from __future__ import annotations

from dataclasses import dataclass

from spacetime.devices.facts import DeviceFacts
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan
from spacetime.planners.gate import gated
from spacetime.planners.gpulet import PAIRS, Gpulet, Pairs
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """The greedy planner over the points of kind `mps`; `pairs` as in `Gpulet`."""

    pairs: Pairs = PAIRS
    name: str = "greedy"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError as `Gpulet` does."""
        same = Gpulet(knee="none", share=False, pairs=self.pairs, name=self.name)
        return same.plan(workload, profiles, device, options)
