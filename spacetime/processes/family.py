"""Tenants that may share a launch, as the session sees them when a process holds their models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

import spacetime._native as _native
from spacetime.models.flat import Outputs
from spacetime.models.request import InFlight, Runs, Work
from spacetime.processes.lanes import LaneProcesses


@dataclass(slots=True, eq=False)
class ProcessFamily:
    """Members of one architecture, held by the lanes' processes; runs their launches there.

    ns[lane][bucket]: what a launch took when that lane's process measured it. calls: the example
    call of each member, `(args, kwargs)`, which goes to every process along with its model.
    """

    lanes: LaneProcesses
    outputs: Outputs
    buckets: tuple[int, ...]
    ns: dict[int, dict[int, int]] = field(default_factory=dict)
    number: int = -1
    members: set[int] = field(default_factory=set)
    calls: dict[int, Any] = field(default_factory=dict)
    instead: Runs | None = None

    @property
    def functions(self) -> Sequence[_native.NativeFunction]:
        """None: Python hands its launches to the processes."""
        return ()

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Answers in the order of `batch`, from this thread's lane's process."""
        if self.instead is not None:
            return self.instead.run(batch)
        return [self.outputs.build(tensors) for tensors in self.lanes.run(batch)]

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch in nanoseconds, as that lane's process measured it, or another's
        where that one was down."""
        return self.ns.get(lane, next(iter(self.ns.values())))[bucket]

    def request(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> InFlight:
        """A request as the executor takes it."""
        return InFlight(tenant, member, self, leaves, samples)

    def how(self) -> str:
        """What runs the family, in words."""
        return "a process for each lane"

    def lines(self) -> list[str]:
        """For explain(): what runs it in its processes, why, and its measured times."""
        return [f"  in {self.how()}", *self.lanes.lines(min(self.members))]
