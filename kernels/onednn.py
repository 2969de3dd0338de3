"""oneDNN's own matrix product for float32, which PyTorch uses only where asked for by name.

PyTorch's linear and bmm call MKL. On processors where MKL takes a narrower vector path than oneDNN,
many rows are up to twice as fast here and few rows slower, so it is always a matter of measuring.
`x` is [S, ..., K], `weight` a stack [T, N, K], `bias` a stack [T, N] or None, as in `linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted
from .slots import stretches


def _linear(rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product for each stretch of equal rows, on views: no weight is copied."""
    out: list[Tensor] = []
    for row, begin, end in stretches(rows):
        part = x.narrow(0, begin, end - begin).contiguous()
        b = bias[row] if bias is not None else None
        out.append(torch.ops.mkldnn._linear_pointwise(part, weight[row], b, "none", [], ""))
    return out[0] if len(out) == 1 else torch.cat(out)


def _pointwise(  # noqa: PLR0917 - TorchScript functions take positions
    rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int]
) -> Tensor:
    """A 1 x 1 convolution of x [S*k, C, H, W], as in `pointwise`."""
    pixels = x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
    n, h, w, c = pixels.size()
    flat = pixels.reshape(rows.size(0), -1, c)
    y = linear_onednn(rows, run, flat, weight.flatten(2), bias)
    return y.view(n, h, w, -1).permute(0, 3, 1, 2)


def _of_one(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One tenant's linear layer: x [..., K], weight [N, K], bias [N] or None."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, "none", [], ""
    )
    return y


available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
if available:  # elsewhere the operator does not exist, so nothing could be compiled
    linear_onednn = scripted(_linear)
    convolve_pointwise_onednn = scripted(_pointwise)
    _scripted_of_one = scripted(_of_one)


def linear_of_one(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One tenant's linear layer as a function of Python, which torch.fx takes into a graph.

    It exists only where oneDNN is `available`.
    """
    return _scripted_of_one(x, weight, bias)
