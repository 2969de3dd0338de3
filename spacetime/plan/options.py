"""What every planner is asked, and the shape that all planners have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import UnsupportedError
from spacetime.plan.plan import Plan
from spacetime.plan.timing import Turns
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan must respect, whoever makes it; the checker holds every plan to the same.

    `gpus`: how many devices there are (None: as many as needed). `max_utilisation`: the fraction
    of time a partition may be busy, in (0, 1]; what is left absorbs random arrivals (1 = the
    papers' own rule). `max_procs`: processes a partition may run side by side. `turns`: the bound
    of a cycle, see `timing.cycle_ms`.

    Raises UnsupportedError naming the option.
    """

    gpus: int | None = None
    max_utilisation: float = 0.9
    max_procs: int = 3
    turns: Turns = "own"

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 1:
            raise UnsupportedError(f"gpus: must be at least 1, got {self.gpus}")
        if not 0 < self.max_utilisation <= 1:
            raise UnsupportedError(
                f"max_utilisation: must be above 0 and at most 1, got {self.max_utilisation}"
            )
        if self.max_procs < 1:
            raise UnsupportedError(f"max_procs: must be at least 1, got {self.max_procs}")


class Planner(Protocol):
    """A pure function from demand to plan; its own choices are fields of the object."""

    @property
    def name(self) -> str:
        """What the plan says made it."""
        ...

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """A plan that passes `check`. Raises InfeasibleError naming tenant and bound."""
        ...
