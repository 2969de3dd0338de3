"""Models on a CUDA device, or on a fake one: which family a model joins, on partitions of SMs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

import spacetime._native as _native
from spacetime.errors import UnsupportedError
from spacetime.fusion import Exported, fingerprint
from spacetime.models.backend import FamilyOptions, Repeat, ThreadLanes, Units, Updated
from spacetime.models.cuda.capture import capturer_of
from spacetime.models.cuda.family import CudaFamily, CudaLanes
from spacetime.models.cuda.prepare import prepare
from spacetime.models.difference import coarse_on_device
from spacetime.models.exports import exported_of
from spacetime.models.flat import check_structure, flat_tensors
from spacetime.models.request import Work
from spacetime.models.signature import Signature
from spacetime.models.snapshot import snapshot
from spacetime.models.timing import elapsed_ns


class CudaBackend(ThreadLanes):
    """Families on a device called `name`. Raises UnsupportedError where PyTorch cannot drive it.

    fuses: whether models of different tenants may be one family.
    """

    def __init__(self, native: _native.CudaDevice, name: str, *, fuses: bool) -> None:
        self.lanes = CudaLanes(native, capturer_of(native, name), ())
        self._fuses = fuses
        self._known: dict[str, CudaFamily] = {}  # by fingerprint and the owner's word

    @property
    def inputs(self) -> tuple[torch.device, ...]:
        """Where requests' tensors may lie besides the CPU's memory."""
        return self.lanes.inputs

    @property
    def tolerance(self) -> float:
        """What the precision of the device's matrix products allows."""
        return 0.0 if self.lanes.host_memory else coarse_on_device()

    def join(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[CudaFamily, int]:
        """The family that a snapshot of `model` joins: a known one over slots, or one of its own,
        captured on every lane there is."""
        model = snapshot(signature.tenant, model)
        exported = exported_of(model, signature, example)
        key = None
        if self._fuses and isinstance(exported, Exported):
            key = f"{fingerprint(exported)} {options.batchable}"
        known = self._known.get(key) if key is not None else None
        if known is not None and known.graph is not None and known.members:
            return known, known.join(signature.tenant, model, options.memory_limit)
        family = prepare(
            model,
            signature,
            example,
            self.lanes,
            exported,
            buckets=[b for b in options.buckets if b & (b - 1) == 0],
            share=self._fuses,
            limit=options.memory_limit,
            batchable=options.batchable,
        )
        family.keep_within(options.slo_ns)
        if key is not None:
            self._known[key] = family
        return family, 0

    def update(
        self,
        family: CudaFamily,
        member: int,
        tenant: str,
        model: nn.Module,
        memory_limit: int | None,
    ) -> Updated:
        """Gives a member a row of new weights beside its old one, which goes when no request names
        it any more. Graphs that name their only row are captured anew."""
        if family.captured and family.graph is None:
            before = self._captured_anew(family, tenant, model, memory_limit)
            return Updated(member, partial(before.leave, member), functions_changed=True)
        row = family.update(tenant, model, memory_limit)
        return Updated(row, partial(family.leave, member))

    def leave(self, family: CudaFamily, member: int) -> bool:
        """Gives a member's row back, and with the last member the family's graphs."""
        family.leave(member)
        if family.members:
            return False
        self._known = {key: known for key, known in self._known.items() if known is not family}
        return True

    def around(self, lane: _native.Lane) -> AbstractContextManager[None]:
        """The stream of the lane's partition. Families that come later are captured on it, too."""
        partition = _native.partition_of(lane)
        self.lanes = replace(self.lanes, partitions=(*self.lanes.partitions, partition))
        return self.lanes.capturer.lane(partition)

    def why_no_lane(self, units: Units) -> str:
        """A graph runs on the SMs that it was captured on, and capturing takes seconds."""
        return f"no graph was captured on units {list(units)}"

    def warm_up(self, family: CudaFamily, member: int, units: Units, largest: int) -> None:
        """Nothing: every graph was launched on every lane when it was captured."""

    def run(self, family: CudaFamily, lane: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """The flat output tensors of each request, from one launch made on the calling thread."""
        if not family.captured or family.instead is not None:
            with self.lanes.capturer.lane(self.lanes.partitions[lane]):
                answers = family.run(batch)
            for answer in answers:
                check_structure(family.outputs, answer)
            return [flat_tensors(answer) for answer in answers]
        launched = [family.payload(work.member, work.leaves, work.samples) for work in batch]
        family.runners[lane].time([payload for payload, _, _ in launched])
        return [list(family.answered(written)) for _, written, _ in launched]

    def time(
        self, family: CudaFamily, lane: int, batch: Sequence[Work], repeat: Repeat
    ) -> list[int]:
        """What `repeat` returns for launches on the lane's stream: their wall time, and of graphs
        on a fake device the virtual time, for there the wall time means nothing."""
        if not family.captured:
            with self.lanes.capturer.lane(self.lanes.partitions[lane]):
                return repeat(partial(elapsed_ns, family.run, [batch]))
        launched = [
            family.payload(work.member, [x.contiguous() for x in work.leaves], work.samples)
            for work in batch
        ]
        payloads = [payload for payload, _, _ in launched]
        wall_or_device = 1 if self.lanes.host_memory else 0
        return repeat(lambda: family.runners[lane].time(payloads)[wall_or_device])

    def _captured_anew(
        self, family: CudaFamily, tenant: str, model: nn.Module, memory_limit: int | None
    ) -> CudaFamily:
        """Puts graphs over the new weights in the place of those that name the old ones. Returns
        the family as it was until now, which has to give its memory back."""
        new = prepare(
            model,
            family.signature,
            family.example,
            family.lanes,
            exported_of(model, family.signature, family.example),
            buckets=family.buckets,
            share=False,
            limit=memory_limit,
        )
        if not new.captured:
            new.leave(0)
            raise UnsupportedError(
                f"tenant {tenant}: no graph holds the model with these weights "
                f"({new.why}); remove the tenant and add it anew"
            )
        return family.become(new)
