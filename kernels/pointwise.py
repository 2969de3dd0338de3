"""Convolution with a 1 x 1 kernel over slots: a linear layer on the channels of every pixel.

`x` is [S*k, C, H, W], `weight` a stack [T, O, C, 1, 1], `bias` a stack [T, O] or None; the output
lies channels last in memory.
"""

from __future__ import annotations

from torch import Tensor

from .linear import linear_batched
from .scripted import scripted


@scripted
def convolve_pointwise(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int]
) -> Tensor:
    """One batched matrix product over all slots: [S*k, O, H', W']."""
    pixels = x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
    n, h, w, c = pixels.size()
    flat = pixels.reshape(rows.size(0), -1, c)
    y = linear_batched(rows, run, flat, weight.flatten(2), bias)
    return y.view(n, h, w, -1).permute(0, 3, 1, 2)
