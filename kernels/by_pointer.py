"""Linear layers and 2-d convolutions over slots whose weights cuBLAS reads where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cublas import Library, multiply
from .slots import spread


def linear_by_pointer(
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    tf32: bool = False,
    by: Library | None = None,
) -> Tensor:
    """A linear layer over slots: [S, ..., N].

    `rows`: int64 [S]; `run` is not needed.
    `x`: [S, ..., K].
    `weight`, `bias`: stacks [T, N, K] and [T, N], or None.
    `tf32`: whether float32 may be rounded to TF32.
    `by`: the library to call; None means PyTorch's own.

    Raises what `cublas.multiply` raises.
    """
    y = x.new_empty(*x.shape[:-1], weight.shape[1])
    flat = (x.shape[0], x.shape[1:-1].numel())
    into = y.view(*flat, y.shape[-1])
    multiply(rows, x.reshape(*flat, x.shape[-1]), weight, bias, into, tf32=tf32, by=by)
    return y


def convolve_by_pointer(  # noqa: PLR0917 - positions as its siblings have them
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    tf32: bool = False,
    by: Library | None = None,
) -> Tensor:
    """A 2-d convolution over slots with one group: [S*k, O, OH, OW].

    `rows`: int64 [S]; `run` is not needed.
    `x`: [S*k, C, H, W].
    `weight`, `bias`: stacks [T, O, C, kh, kw] and [T, O], or None.
    `stride`, `padding`, `dilation`: one number each, or two, down and across.
    `tf32`: whether float32 may be rounded to TF32.
    `by`: the library to call; None means PyTorch's own.

    Windows of more than one pixel are copied out of the input; weights never are. Raises what
    `cublas.multiply` raises.
    """
    if weight.shape[3:] == (1, 1) and not any(padding):
        x = x[:, :, :: stride[0], :: stride[-1]]
        if x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
            return _by_planes(rows, x, weight, bias, tf32=tf32, by=by)
        windows = x.permute(0, 2, 3, 1)
        matrices = weight[:, :, :, 0, 0]
    else:
        last = weight.stride(2) == 1  # channels last: read in the order in which they lie
        windows = _windows(x, weight.shape[3:], stride, padding, dilation, last=last)
        matrices = (weight.movedim(2, 4) if last else weight).view(*weight.shape[:2], -1)
    samples, high, wide = windows.shape[:3]
    y = x.new_empty(samples, high, wide, weight.shape[1])
    flat = (rows.shape[0], samples // max(rows.shape[0], 1) * high * wide)
    into = y.view(*flat, y.shape[-1])
    read = windows.reshape(*flat, matrices.shape[2])
    multiply(rows, read, matrices, bias, into, tf32=tf32, by=by)
    return y.permute(0, 3, 1, 2)


def _by_planes(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    tf32: bool,
    by: Library | None,
) -> Tensor:
    """A convolution with 1 x 1 kernels of an input whose channels are planes [H, W] in memory.

    Neither the input nor the output is reordered.
    """
    samples, _, high, wide = x.shape
    if samples != rows.shape[0]:
        rows = spread(rows, 1, samples // max(rows.shape[0], 1))
    y = x.new_empty(samples, weight.shape[1], high, wide)
    pixels, into = (t.flatten(2).transpose(1, 2) for t in (x, y))
    multiply(rows, pixels, weight[:, :, :, 0, 0], bias, into, tf32=tf32, by=by)
    return y


def _windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    last: bool,
) -> Tensor:
    """A view of the windows of the padded input: [N, OH, OW, kh, kw, C] where `last`, else [N,
    OH, OW, C, kh, kw].
    """
    if any(padding):
        x = torch.constant_pad_nd(x, [padding[-1], padding[-1], padding[0], padding[0]])
    out = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    samples, channels, down, across = x.stride()
    view = x.as_strided(
        [x.shape[0], *out, *kernel, x.shape[1]],
        [
            *(samples, down * stride[0], across * stride[-1]),
            *(down * dilation[0], across * dilation[-1], channels),
        ],
    )
    return view if last else view.movedim(5, 3)
