"""The ideal of the gpulet paper (ATC'22 §6): every layout of all devices, the first that fits wins.

Four ways to split a device give 4^N layouts of N devices; as devices are equal, those that differ
in order only are tried once (35 of 256 for four). In each layout gpulet's placement runs without
splitting, and its own layout is one of those tried: whatever gpulet admits, this admits. Layouts
grow as N³: this is for a few devices, and refuses more than `most_layouts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.memory import holding
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan
from spacetime.planners.gate import gated
from spacetime.planners.gpulet import Gpulet
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.board import WHOLE
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload

Layout = tuple[tuple[int, ...], ...]


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Ideal:
    """The fewest devices of any layout, by exhaustion; `gpulet` holds the choices of placement.

    `most_layouts` bounds the time: 35 layouts of 4 devices, 969 of 16, 6545 of 32.
    """

    gpulet: Gpulet = field(default_factory=Gpulet)
    most_layouts: int = 1000
    name: str = "ideal"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError as `Gpulet` does, and with `time` for too many."""
        profiles = holding(workload, profiles, device)
        refused: InfeasibleError | None = None
        best: Plan | None = None
        try:
            best = replace(self.gpulet, name=self.name).plan(workload, profiles, device, options)
        except InfeasibleError as error:
            if options.gpus is None:
                raise
            refused = error
        gpus = len(best.gpus) - 1 if best else options.gpus or 0
        while gpus > 0 and (found := self._first(workload, profiles, device, options, gpus)):
            best, gpus = found, len(found.gpus) - 1
        if best is None:
            assert refused is not None, "a plan or a reason"
            raise refused
        return best

    def _first(
        self,
        workload: Workload,
        profiles: Profiles,
        device: DeviceFacts,
        options: PlanOptions,
        gpus: int,
    ) -> Plan | None:
        """The plan of the first layout of so many devices that fits, or None."""
        ways = math.comb(gpus + len(self.gpulet.pairs), gpus)
        if ways > self.most_layouts:
            raise InfeasibleError(
                workload.tenants[0].name,
                "time",
                f"{ways} layouts of {gpus} devices are more than most_layouts = "
                f"{self.most_layouts}; raise it, or use gpulet",
            )
        for layout in layouts(self.gpulet, gpus):
            try:
                board, reasons = self.gpulet.fill(workload, profiles, device, options, layout)
            except InfeasibleError:
                continue
            made = Plan(self.name, device.name, board.gpus(), reasons=reasons)
            return finish(made, workload, profiles, device, options)
        return None


def layouts(gpulet: Gpulet, gpus: int) -> Iterator[Layout]:
    """Every way to split so many equal devices, whole or in one of the pairs."""
    return combinations_with_replacement(((WHOLE,), *gpulet.pairs), gpus)
