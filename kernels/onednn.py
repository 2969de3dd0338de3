"""oneDNN's own matrix product for float32, which PyTorch uses only where asked for by name.

PyTorch's linear and bmm call MKL; on processors where MKL takes a narrower vector path than
oneDNN does, many rows are up to twice as fast here, few rows slower: always a matter of measuring.
``x`` [S, ..., K], weight stack [T, N, K], bias stack [T, N] or None, as in `linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scripted import scripted


def _linear(rows: Tensor, run: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product for each stretch of equal rows, on views: no weight is copied."""
    ids: list[int] = rows.tolist()
    out: list[Tensor] = []
    begin = 0
    while begin < len(ids):
        row = ids[begin]
        end = begin + 1
        while end < len(ids) and ids[end] == row:
            end += 1
        part = x.narrow(0, begin, end - begin).contiguous()
        b = bias[row] if bias is not None else None
        out.append(torch.ops.mkldnn._linear_pointwise(part, weight[row], b, "none", [], ""))
        begin = end
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
    """_of_one as a plain function, which torch.fx takes into a graph; only where available."""
    return _scripted_of_one(x, weight, bias)
