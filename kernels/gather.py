"""A bare parameter, one copy for each slot, shaped to broadcast against the value it meets."""

from __future__ import annotations

from torch import Tensor

from .scripted import scripted
from .slots import take


@scripted
def gather_aligned(
    rows: Tensor, run: Tensor, stack: Tensor, shape: list[int], slot_dim: int
) -> Tensor:
    """The weights of each slot, shaped to broadcast.

    `rows`, `run`: as in every kernel.
    `stack`: [T, ...].
    `shape`: [S, ...], what the gathered weights become.
    `slot_dim`: the dimension to which S is moved afterwards.
    """
    return take(stack, rows, run).reshape(shape).movedim(0, slot_dim)
