"""Convolution over slots, plain and transposed, in one to three dimensions.

`rows`, `run`: as in every kernel.
`x`: [S*k, C, *space]: k samples for each slot, a slot's samples side by side.
`weight`: the stack [T, *shape] of one tenant's weight.
`bias`: stack [T, O], or None.
`stride`, `padding`, `dilation`, `output_padding`: one number for each dimension of space.
`transposed`, `groups`: as in torch.convolution.

The output is [S*k, O, *space'].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted
from .slots import stretches, take


@scripted
def convolve_each(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """One convolution for each stretch of equal rows, on views: no weight is copied."""
    per_slot = x.size(0) // max(rows.size(0), 1)
    out: list[Tensor] = []
    for row, begin, end in stretches(rows):
        part = x.narrow(0, begin * per_slot, (end - begin) * per_slot)
        b = bias[row] if bias is not None else None
        out.append(
            torch.convolution(
                part, weight[row], b, stride, padding, dilation, transposed, output_padding, groups
            )
        )
    return out[0] if len(out) == 1 else torch.cat(out)


@scripted
def convolve_grouped(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """All slots at once, as the groups of one convolution."""
    slots = rows.size(0)
    per_slot = x.size(0) // slots
    if weight.dim() == 5 and weight.stride(2) == 1:  # channels last: gather it as it lies
        w = take(weight.movedim(2, 4), rows, run).flatten(0, 1).movedim(3, 1)
    else:
        w = take(weight, rows, run).flatten(0, 1)
    b = take(bias, rows, run).flatten() if bias is not None else None
    split = [slots, per_slot] + list(x.shape[1:])  # noqa: RUF005 - not in TorchScript
    packed = x.reshape(split).transpose(0, 1).flatten(1, 2)
    y = torch.convolution(
        packed, w, b, stride, padding, dilation, transposed, output_padding, slots * groups
    )
    split = [per_slot, slots, -1] + list(y.shape[2:])  # noqa: RUF005 - not in TorchScript
    return y.reshape(split).transpose(0, 1).flatten(0, 1)


@scripted
def convolve_unfolded(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Windows of the padded input times the weights: in 2-d, with one sample a slot and one
    group.
    """
    n, c, h, w = x.size()
    kh, kw = weight.size(3), weight.size(4)
    oh = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    if padding[0] > 0 or padding[1] > 0:
        x = torch.constant_pad_nd(x, [padding[1], padding[1], padding[0], padding[0]], 0.0)
    else:
        x = x.contiguous()
    a, b, p, q = x.stride()
    windows = x.as_strided(
        [n, kh, kw, c, oh, ow],
        [a, p * dilation[0], q * dilation[1], b, p * stride[0], q * stride[1]],
    ).reshape(n, c * kh * kw, oh * ow)
    kernel = take(weight.movedim(2, 4), rows, run).flatten(2)
    if bias is not None:
        y = torch.baddbmm(take(bias, rows, run).unsqueeze(2), kernel, windows)
    else:
        y = torch.bmm(kernel, windows)
    return y.view(n, kernel.size(1), oh, ow)
