"""Normalisation over slots: statistics of the input, then scale and shift of each slot.

``scale`` and ``shift`` are stacks or None; ``shape`` is how one slot's scale broadcasts against x,
with S in front: [S, 1, ..., n].
"""

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
    """x * scale + shift with the scale and shift of each slot."""
    if scale is not None:
        s = take(scale, rows, run).reshape(shape).movedim(0, slot_dim)
        if shift is not None:
            b = take(shift, rows, run).reshape(shape).movedim(0, slot_dim)
            return torch.addcmul(b, x, s)
        return x * s
    if shift is not None:
        return x + take(shift, rows, run).reshape(shape).movedim(0, slot_dim)
    return x
