"""Tenants that may share a launch, as the session sees them when a process holds their models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.devices.device import Device
from spacetime.errors import InvalidInput
from spacetime.models.flat import Outputs
from spacetime.models.request import InFlight, Runs, Work
from spacetime.models.signature import Signature
from spacetime.processes.hosted import check_dtypes, outputs_from
from spacetime.processes.lanes import Lanes
from spacetime.processes.packed import pack
from spacetime.processes.roster import Packed


@dataclass(frozen=True, slots=True)
class Asked:
    """How a family is to run: its batch sizes, its objective, whether its owner lets it batch, and
    how many bytes of a device a member's weights may take."""

    buckets: Sequence[int]
    slo_ns: int | None
    batchable: bool | None
    limit: int | None = None


@dataclass(slots=True, eq=False)
class ProcessFamily:
    """Members of one architecture, held by the lanes' processes; runs their launches there."""

    lanes: Lanes
    outputs: Outputs
    buckets: tuple[int, ...]
    ns: dict[int, dict[int, int]] = field(default_factory=dict)  # measured, by lane and bucket
    native: int = -1  # its number in the executor
    members: set[int] = field(default_factory=set)
    calls: dict[int, Any] = field(default_factory=dict)  # what each was tried with
    of: dict[int, ProcessFamily] = field(default_factory=dict)  # every family, by member
    instead: Runs | None = None  # answers everything, once the family was taken apart

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Answers in the order of `batch`, from this thread's lane's process."""
        if self.instead is not None:
            return self.instead.run(batch)
        return [self.outputs.build(tensors) for tensors in self.lanes.run(batch)]

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch, as that lane's process measured it, or else another's."""
        return self.ns.get(lane, next(iter(self.ns.values())))[bucket]

    def request(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> InFlight:
        """A request as the executor takes it."""
        return InFlight(tenant, member, self, leaves, samples)

    def update(self, tenant: str, member: int, model: nn.Module) -> None:
        """Gives a member the weights of `model`, in every process. Raises InvalidInput, ModelError,
        and nothing has changed."""
        area = pack(tenant, model, self.calls[member])
        try:
            self.lanes.update(member, area)
        except BaseException:
            area.close()
            raise

    def leave(self, member: int) -> None:
        """Forgets a member, in every process."""
        self.members.discard(member)
        self.calls.pop(member, None)
        self.of.pop(member, None)
        self.lanes.leave(member)

    def how(self) -> str:
        """What runs the family, in words."""
        return "a process for each lane"

    def lines(self) -> list[str]:
        """For explain(): what runs it in its processes, why, and its measured times."""
        return [f"  in {self.how()}", *self.lanes.lines(min(self.members))]


def hosted(isolation: str, device: Device, partitions: Sequence[Sequence[int]]) -> Families | None:
    """The families of lanes in processes of their own; None where lanes are threads of this one.

    Raises InvalidInput naming `isolation`, LaneLost where a process does not start.
    """
    if isolation not in {"thread", "process"}:
        raise InvalidInput("-", "isolation", "'thread' or 'process'", repr(isolation))
    if device.environments:
        anywhere = [device.dispatched_on(units) for units in partitions]
        opens = (device.within, device.kind)
        lanes = Lanes(
            anywhere,
            environments=device.environments,
            host=device.host,
            opens=opens,
            before_kill=device.before_kill,
        )
        return Families(lanes)
    if isolation == "thread":
        return None
    if device.kind != "cores":
        expected = f"'thread' for partitions of kind {device.kind}, which one process holds"
        raise InvalidInput("-", "isolation", expected, repr(isolation))
    return Families(Lanes(partitions))


class Families:
    """Which tenants of the processes share launches; used under the session's lock."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self._of: dict[int, ProcessFamily] = {}  # by member
        self._numbers = itertools.count()

    def add(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        asked: Asked,
        *,
        add_family: Callable[[ProcessFamily], None],
    ) -> tuple[ProcessFamily, int]:
        """Sends `model` to every process; its family and its number, the same in all.

        add_family: called with a family that is new.
        Raises InvalidInput, ModelError, LaneLost (the model ended the process that tried it).
        """
        check_dtypes(signature.tenant, signature.leaves)
        call = pytree.tree_unflatten(list(example), signature.spec)
        area = pack(signature.tenant, model, call)
        number = next(self._numbers)
        try:
            packed = Packed(
                area, signature.tenant, len(asked.buckets) > 1, asked.buckets, asked.batchable
            )
            told = self.lanes.add(number, packed, asked.slo_ns)
        except BaseException:
            area.close()
            raise
        first = next(iter(told.values()))
        family = self._of.get(first["kin"]) if first["kin"] is not None else None
        if family is None:
            family = ProcessFamily(
                self.lanes, outputs_from(first["outputs"]), tuple(first["buckets"]), of=self._of
            )
            add_family(family)
        for lane, found in told.items():
            family.ns[lane] = {int(bucket): int(ns) for bucket, ns in found["ns"].items()}
        family.members.add(number)
        family.calls[number] = call
        self._of[number] = family
        return family, number
