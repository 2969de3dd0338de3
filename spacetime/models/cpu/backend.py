"""Models on cores: which family a model joins, on lanes that are threads of this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

import spacetime._native as _native
from spacetime.fusion import Exported, fingerprint
from spacetime.models.backend import FamilyOptions, Repeat, ThreadLanes, Units, Updated
from spacetime.models.cpu.family import CpuFamily
from spacetime.models.cpu.program import Program, program_of
from spacetime.models.cpu.runner import Runner
from spacetime.models.exports import exported_of
from spacetime.models.flat import check_structure, flat_tensors, spread
from spacetime.models.request import Work
from spacetime.models.signature import Signature
from spacetime.models.snapshot import snapshot
from spacetime.models.timing import bucket_ns, elapsed_ns, lane_threads, on_cores


class CpuBackend(ThreadLanes):
    """Families on cores.

    partitions: the cores of each lane; their owner may add lanes later. Programs are measured on
    the first lane's. fuses: whether models of different tenants may be one family.
    """

    inputs: tuple[torch.device, ...] = ()
    tolerance = 0.0

    def __init__(self, partitions: Sequence[Units], *, fuses: bool) -> None:
        self._partitions = partitions
        self._fuses = fuses
        self._known: dict[str, CpuFamily] = {}  # by fingerprint and the owner's word
        self._warm: set[tuple[int, int, int]] = set()  # family number, number of cores, bucket

    def join(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[CpuFamily, int]:
        """The family that a snapshot of `model` joins. Raises InvalidInput, ModelError."""
        return self.hold(snapshot(signature.tenant, model), signature, example, options)

    def hold(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[CpuFamily, int]:
        """The family that `model` itself joins, which nobody else may hold from now on."""
        exported = exported_of(model, signature, example)
        key = None
        if self._fuses and isinstance(exported, Exported):
            key = f"{fingerprint(exported)} {options.batchable}"
        family = self._known.get(key) if key is not None else None
        if family is None:
            family = self._new(model, signature, example, exported, options)
            if key is not None and family.runner.shares:
                self._known[key] = family
        return family, family.join(model, alone=not self._is_known(family))

    def update(
        self,
        family: CpuFamily,
        member: int,
        tenant: str,
        model: nn.Module,
        memory_limit: int | None,
    ) -> Updated:
        """Gives a member the weights of `model`: launches that start from now on have them."""
        family.update(tenant, member, model)
        return Updated(member)

    def leave(self, family: CpuFamily, member: int) -> bool:
        """Forgets a member. A family that others may join stays, also without any member."""
        family.leave(member)
        return not family.members and not self._is_known(family)

    def around(self, lane: _native.Lane) -> AbstractContextManager[None]:
        """As many threads of PyTorch's as the lane has cores, without autograd."""
        threads: AbstractContextManager[None] = lane_threads(lane.size)
        return threads

    def why_no_lane(self, units: Units) -> str:
        """Nothing stands in the way: programs run on any cores."""
        return ""

    def warm_up(self, family: CpuFamily, member: int, units: Units, largest: int) -> None:
        """Runs a member's programs once on `units`: TorchScript optimises in its first calls, and
        anew for another number of threads."""
        cold = [
            bucket
            for bucket in family.buckets
            if bucket <= largest and (family.number, len(units), bucket) not in self._warm
        ]
        if cold:
            on_cores(units, partial(_run_once, family, member, cold))
        self._warm |= {(family.number, len(units), bucket) for bucket in cold}

    def run(self, family: CpuFamily, lane: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """The flat output tensors of each request, from one launch made on the calling thread."""
        answers = family.runner.run(batch)
        if family.runner.whole:
            for answer in answers:
                check_structure(family.outputs, answer)
        return [flat_tensors(answer) for answer in answers]

    def time(
        self, family: CpuFamily, lane: int, batch: Sequence[Work], repeat: Repeat
    ) -> list[int]:
        """What `repeat` returns on a thread set up as the lane's is."""
        launch = partial(elapsed_ns, family.runner.run, [batch])
        took: list[int] = on_cores(self._partitions[lane], partial(repeat, launch))
        return took

    def _is_known(self, family: CpuFamily) -> bool:
        return family in self._known.values()

    def _new(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        exported: Exported | str,
        options: FamilyOptions,
    ) -> CpuFamily:
        """A family that `model` has yet to join, measured at the buckets that fit its objective."""
        on_lane = partial(on_cores, self._partitions[0])
        choose = partial(program_of, model, signature, example, exported)
        program = on_lane(partial(choose, batchable=options.batchable, buckets=options.buckets))
        usable = tuple(options.buckets) if program.batches else (1,)
        measured = on_lane(partial(_measured, program, example, usable))
        limit = options.slo_ns  # two launches in a row have to meet the objective
        fitting = tuple(b for b in usable if b == 1 or limit is None or 2 * measured[b] <= limit)
        runner = Runner(
            program.outputs,
            fitting,
            {0: program.call},
            shares=program.batches,
            whole=program.whole,
        )
        runner.alone_ns = {bucket: measured[bucket] for bucket in fitting}
        return CpuFamily(
            signature=signature,
            example=example,
            runner=runner,
            exported=exported,
            on_lane=on_lane,
            batchable=options.batchable,
            first=model,
            runs_as=program.how,
            not_faster=program.why,
        )


def _measured(
    program: Program, example: Sequence[Tensor], buckets: Sequence[int]
) -> dict[int, int]:
    if program.batches:
        return bucket_ns(program.call, example, buckets)
    # It may take no batch but its example's.
    return {1: min(elapsed_ns(program.call, example) for _ in range(3))}


def _run_once(family: CpuFamily, member: int, buckets: Sequence[int]) -> None:
    runner = family.runner
    for bucket in buckets:
        inputs = spread(family.example, bucket)
        runner.alone[member](*inputs)
        if runner.fused is not None:
            runner.fused(torch.full((bucket,), member), *inputs)
