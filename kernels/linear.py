"""Linear layer over slots: x [S, ..., K], weight stack [T, N, K], bias stack [T, N] or None."""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted
from .slots import stretches, take


@scripted
def linear_batched(
    rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """One batched matrix product with the slots' weights: [S, ..., N]."""
    w = take(weight, rows, run).transpose(1, 2)
    flat = x.reshape(x.size(0), -1, x.size(-1))
    if bias is not None:
        y = torch.baddbmm(take(bias, rows, run).unsqueeze(1), flat, w)
    else:
        y = torch.bmm(flat, w)
    return y.view(list(x.shape[:-1]) + [y.size(2)])  # noqa: RUF005 - not in TorchScript


@scripted
def linear_each(
    rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """One linear layer for each stretch of equal rows, on views: no weight is copied."""
    out: list[Tensor] = []
    for row, begin, end in stretches(rows):
        b = bias[row] if bias is not None else None
        out.append(torch._C._nn.linear(x.narrow(0, begin, end - begin), weight[row], b))
    return out[0] if len(out) == 1 else torch.cat(out)
