"""Normalisation over slots: x is normalised already; here each slot's scale and shift follow."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted
from .slots import take


@scripted
def affine(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    shape: list[int],
    slot_dim: int,
) -> Tensor:
    """x * scale + shift, with the scale and shift of each slot.

    `rows`, `run`: as in every kernel.
    `x`: any shape, with the slots in dimension `slot_dim`.
    `scale`, `shift`: stacks, or None for no scale or shift.
    `shape`: [S, 1, ..., n], how the slots' scales are shaped before S is moved to `slot_dim`.
    `slot_dim`: of x.
    """
    if scale is not None:
        s = take(scale, rows, run).reshape(shape).movedim(0, slot_dim)
        if shift is not None:
            b = take(shift, rows, run).reshape(shape).movedim(0, slot_dim)
            return torch.addcmul(b, x, s)
        return x * s
    if shift is not None:
        return x + take(shift, rows, run).reshape(shape).movedim(0, slot_dim)
    return x
