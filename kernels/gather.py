"""A bare parameter, one copy a slot, shaped to broadcast against the value it meets."""

from __future__ import annotations

from torch import Tensor

from .scripted import scripted
from .slots import take


@scripted
def gather_aligned(
    rows: Tensor, run: Tensor, stack: Tensor, shape: list[int], slot_dim: int
) -> Tensor:
    """gather_aligned: the weights of each slot as [S, *shape[1:]], S moved to slot_dim."""
    return take(stack, rows, run).reshape(shape).movedim(0, slot_dim)
