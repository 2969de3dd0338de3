"""A family's Triton kernels, compiled before it is captured: all at once, in processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spacetime.fusion import placed
from spacetime.fusion.ahead import META, kernels_of, without_data
from spacetime.models.cuda.family import CudaFamily


def compile_ahead(family: CudaFamily, buckets: Sequence[int]) -> None:
    """Compiles what tuning will launch on any lane; says in `family.kernels` what came of it."""
    family.kernels = family.lanes.capturer.compile(lambda: _kernels(family, buckets))


def _kernels(family: CudaFamily, buckets: Sequence[int]) -> set[str]:
    if family.graph is None:
        return set()
    module = placed(family.graph, META)
    stacks = [without_data(stack) for stack in family.weights.stacks]
    major, minor = family.lanes.native.capability
    kernels: set[str] = set()
    for sms in {partition.sms for partition in family.lanes.partitions}:
        for bucket in buckets:
            operands = _operands(family, bucket, stacks)
            kernels |= kernels_of(module, operands, sms=sms, capability=10 * major + minor)
    return kernels


def _operands(family: CudaFamily, bucket: int, stacks: Sequence[Tensor]) -> list[Tensor]:
    rows = torch.empty(bucket, dtype=torch.int64, device=META)
    given = [
        torch.empty((bucket, *leaf.tail), dtype=leaf.dtype, device=META)
        for leaf in family.signature.leaves
    ]
    return [rows, torch.tensor(-1), *stacks, *given]
