"""Models in the processes of their lanes: which family a model joins, as the session sees it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import spacetime._native as _native
from spacetime.devices.device import Device
from spacetime.errors import InvalidInput
from spacetime.models.backend import FamilyOptions, Repeat, Units, Updated
from spacetime.models.difference import coarse_on_device
from spacetime.models.flat import flat_tensors
from spacetime.models.request import Work
from spacetime.models.signature import Signature
from spacetime.models.timing import elapsed_ns, on_cores
from spacetime.processes.family import ProcessFamily
from spacetime.processes.hosted import check_dtypes, outputs_from
from spacetime.processes.lanes import LaneProcesses
from spacetime.processes.packed import pack
from spacetime.processes.process import ON_CORES
from spacetime.processes.roster import Packed


class ProcessBackend:
    """Families in a process for each lane: of cores, or of the shares that `device` is made of."""

    inputs: tuple[torch.device, ...] = ()

    def __init__(self, device: Device) -> None:
        self._device = device
        self._of_shares = bool(device.environments)
        self.lanes = LaneProcesses(
            environments=device.environments,
            host=device.host or ON_CORES,
            opens=(device.within, device.kind) if self._of_shares else None,
            before_kill=device.before_kill,
        )
        self._family_of: dict[int, ProcessFamily] = {}  # by member
        self._numbers = itertools.count()

    @property
    def tolerance(self) -> float:
        """What the precision of a device's matrix products allows; cores differ in nothing."""
        return coarse_on_device() if self._of_shares else 0.0

    def join(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[ProcessFamily, int]:
        """Sends `model` to every process; its family, and its number, which is the same in all.

        Raises InvalidInput, ModelError, LaneLost (the model ended the process that tried it).
        """
        check_dtypes(signature.tenant, signature.leaves)
        call = pytree.tree_unflatten(list(example), signature.spec)
        area = pack(signature.tenant, model, call)
        number = next(self._numbers)
        buckets = options.buckets
        packed = Packed(area, signature.tenant, len(buckets) > 1, buckets, options.batchable)
        try:
            facts = self.lanes.add(number, packed, options.slo_ns)
        except BaseException:
            area.close()
            raise
        first = next(iter(facts.values()))
        family = self._family_of.get(first["kin"]) if first["kin"] is not None else None
        if family is None:
            outputs = outputs_from(first["outputs"])
            family = ProcessFamily(self.lanes, outputs, tuple(first["buckets"]))
        for lane, measured in facts.items():
            family.ns[lane] = {int(bucket): int(ns) for bucket, ns in measured["ns"].items()}
        family.members.add(number)
        family.calls[number] = call
        self._family_of[number] = family
        return family, number

    def update(
        self,
        family: ProcessFamily,
        member: int,
        tenant: str,
        model: nn.Module,
        memory_limit: int | None,
    ) -> Updated:
        """Gives a member the weights of `model`, in every process."""
        area = pack(tenant, model, family.calls[member])
        try:
            self.lanes.update(member, area)
        except BaseException:
            area.close()
            raise
        return Updated(member)

    def leave(self, family: ProcessFamily, member: int) -> bool:
        """Forgets a member, in every process; a family without members has gone."""
        family.members.discard(member)
        family.calls.pop(member, None)
        self._family_of.pop(member, None)
        self.lanes.leave(member)
        return not family.members

    def open(self, partitions: Sequence[Units]) -> None:
        """Starts a process for each partition, at once; each takes every tenant there is."""
        self.lanes.open([self._device.dispatched_on(units) for units in partitions])

    def around(self, lane: _native.Lane) -> AbstractContextManager[None]:
        """A lane's thread hands its launches to the lane's process."""
        return self.lanes.serving(lane.id)

    def why_no_lane(self, units: Units) -> str:
        """Nothing stands in the way: a new process takes every tenant."""
        return ""

    def rest(self, lane: int) -> None:
        """Ends the process of an idle lane."""
        self.lanes.rest(lane)

    def wake(self, lanes: Iterable[int]) -> None:
        """Starts processes for those of the lanes that rest. Raises LaneLost."""
        self.lanes.wake(lanes)

    def move(self, lane: int, units: Units) -> None:
        """Moves a lane to other cores: its launches go to a new process once that has every
        tenant. Raises InvalidInput for shares, which stay where they were made, and LaneLost."""
        if self._of_shares:
            raise InvalidInput("-", "lane", "of cores, in a process of its own", f"lane {lane}")
        self.lanes.replace(lane, units)

    def granted(self, lanes: Sequence[_native.Lane]) -> list[int]:
        """How many cores each lane has, or how many SMs its process sees of its share."""
        return self.lanes.granted if self._of_shares else [lane.size for lane in lanes]

    @property
    def pids(self) -> list[int | None]:
        """The process of each lane, None while it is down."""
        return self.lanes.pids

    def warm_up(self, family: ProcessFamily, member: int, units: Units, largest: int) -> None:
        """Nothing: a process runs every member when it takes it."""

    def run(self, family: ProcessFamily, lane: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """The flat output tensors of each request; the calling thread has to be the lane's."""
        return [flat_tensors(answer) for answer in family.run(batch)]

    def time(
        self, family: ProcessFamily, lane: int, batch: Sequence[Work], repeat: Repeat
    ) -> list[int]:
        """What `repeat` returns on a thread that hands its launches to the lane's process."""

        def on_lane() -> list[int]:
            with self.lanes.serving(lane):
                return repeat(partial(elapsed_ns, family.run, [batch]))

        took: list[int] = on_cores(sorted(os.sched_getaffinity(0)), on_lane)
        return took

    def close(self) -> None:
        """Ends every process, and waits until all have ended. Idempotent."""
        self.lanes.close()
