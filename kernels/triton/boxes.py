"""2-d convolution over slots by boxes of pixels: half precision, stride 1, channels last.

What the kernel in `tma` needs of its operands, which boxes are worth timing, and the launch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .configs import SHARED_BYTES
from .epilogue import ACTIVATIONS
from .launch import ConvolutionGeometry, Epilogue, Launch, Pair, pair, whole_device
from .tma import boxes

LEAST_CAPABILITY = 90  # of the devices that have a tensor memory accelerator
_SIDES = (4, 8, 16, 32)
_ALIGNED = 16  # bytes, of addresses and strides


@dataclass(frozen=True, slots=True)
class Box:
    """The pixels down and across, output channels and channels of a tile, and how a program runs
    it.
    """

    high: int
    wide: int
    block_n: int
    block_k: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        """A short and complete name; `boxed` reads it."""
        return f"{self.high}x{self.wide}x{self.block_n}x{self.block_k} w{self.warps} s{self.stages}"

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory of one program, an upper bound: operands and the stored tile."""
        pixels = self.high * self.wide
        operands = self.stages * (pixels + self.block_n) * self.block_k * 2
        return operands + (pixels + 8) * (self.block_n + 8) * 2 + 1024


def boxed(name: str) -> Box:
    """The Box of this name. Raises ValueError where it is no name of a Box."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)x(\d+) w(\d+) s(\d+)", name)
    if match is None:
        raise ValueError(f"box: {name!r} is not like '16x8x64x64 w4 s3'")
    return Box(*map(int, match.groups()))


def box_candidates(
    out: Pair, channels: int, outputs: int, *, capability: int = LEAST_CAPABILITY
) -> tuple[Box, ...]:
    """Boxes to time, of 128 pixels and of 64: of each the shape that wastes the fewest pixels.

    `out`: height and width of the output.
    `channels`, `outputs`: of the input and of the output.
    `capability`: of the device, 90 for 9.0.

    Empty where the channels are no multiple of 32, or the device has no tensor memory accelerator.
    """
    deep = next((k for k in (64, 32) if channels % k == 0), 0)
    if not deep or capability < LEAST_CAPABILITY:
        return ()
    limit = SHARED_BYTES.get(capability, min(SHARED_BYTES.values()))
    across = 128 if outputs > 64 else 64 if outputs > 32 else 32
    fitting: list[Box] = []
    for pixels, warps in ((128, 8), (64, 4)):
        sides = [(h, w) for h, w in product(_SIDES, _SIDES) if h * w == pixels]
        high, wide = min(sides, key=lambda s: (_covered(out, s), abs(s[0] - s[1]), -s[1]))
        box = Box(high, wide, across, deep, warps, 4)
        fitting += [box] if box.shared_bytes <= limit else []
    return tuple(fitting)


def _covered(out: Pair, side: Pair) -> int:
    """How many pixels whole boxes of that size take to cover an output."""
    return prod(-(-n // s) * s for n, s in zip(out, side, strict=True))


def box_launch(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: ConvolutionGeometry,
    epilogue: Epilogue,
    *,
    box: Box,
    sms: int | None = None,
) -> tuple[Tensor, Launch]:
    """The output [S*k, O, OH, OW], channels last and not yet filled, and the launch that fills it.

    `rows`: int64 [S].
    `x`: [S*k, C, H, W], channels last.
    `weight`: stack [T, O, C, kh, kw], channels last.
    `geometry`, `epilogue`: the convolution, and what follows the sum.
    `box`: the tile.
    `sms`: of the partition; None means the whole device.

    Raises ValueError for operands that the kernel does not take.
    """
    pixels, matrices = _laid(x, weight, geometry, epilogue, box)
    window = (weight.shape[3], weight.shape[4])
    high, wide = geometry.out((x.shape[2], x.shape[3]), window)
    y = x.new_empty(x.shape[0], high, wide, weight.shape[1])
    tiles = -(-high // box.high) * -(-wide // box.wide) * -(-weight.shape[1] // box.block_n)
    residual = epilogue.residual
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    sms = sms if sms is not None else whole_device(x)
    arguments = {
        **{"rows": rows, "x": _described(pixels, (1, box.high, box.wide, box.block_k))},
        **{"weight": _described(matrices, (1, box.block_n, box.block_k))},
        **{"bias": epilogue.bias, "residual": residual, "y": y, "samples": x.shape[0]},
        **{"per_slot": x.shape[0] // max(rows.shape[0], 1)},
        **{"bias_row": 0 if epilogue.bias is None else epilogue.bias.stride(0)},
        **{"CHANNELS": x.shape[1], "OUTPUTS": weight.shape[1], "OUT": (high, wide)},
        **{"KERNEL": window, "PADDING": geometry.padding, "DILATION": geometry.dilation},
        **{"ACTIVATION": epilogue.activation, "BLOCK_H": box.high, "BLOCK_W": box.wide},
        **{"BLOCK_N": box.block_n, "BLOCK_K": box.block_k},
    }
    per_sm = max(1, min(2, SHARED_BYTES[LEAST_CAPABILITY] // box.shared_bytes))
    programs = min(x.shape[0] * tiles, sms * per_sm)
    return y.permute(0, 3, 1, 2), Launch(boxes, programs, arguments, box.warps, box.stages)


def _laid(
    x: Tensor, weight: Tensor, geometry: ConvolutionGeometry, epilogue: Epilogue, box: Box
) -> tuple[Tensor, Tensor]:
    """x as [S*k, H, W, C] and the stack as [T, O, kh*kw*C]. Raises ValueError where they do not
    lie so.
    """
    if x.dtype not in {torch.bfloat16, torch.float16} or weight.dtype != x.dtype:
        raise ValueError(f"x: {x.dtype} and weight: {weight.dtype} must be one half precision")
    if geometry.stride != (1, 1) or geometry.groups != 1 or x.shape[1] % box.block_k:
        raise ValueError(
            f"geometry: {geometry} of {x.shape[1]} channels must have stride 1, one group and a "
            f"multiple of {box.block_k} channels"
        )
    if epilogue.activation not in ACTIVATIONS:
        raise ValueError(f"activation: {epilogue.activation!r} must be one of {ACTIVATIONS}")
    pixels, stack = x.permute(0, 2, 3, 1), weight.permute(0, 1, 3, 4, 2)
    if pixels.stride(3) != 1 or not stack[0].is_contiguous():
        raise ValueError("x: it and the weights must lie channels last")
    return pixels, stack.flatten(2)


def _described(tensor: Tensor, box: Sequence[int]) -> Any:
    """A descriptor made on the host: it is captured with the launch and needs no memory on the
    device.

    Raises ValueError where the tensor is not aligned.
    """
    size = tensor.element_size()
    if tensor.data_ptr() % _ALIGNED or any(s * size % _ALIGNED for s in tensor.stride()[:-1]):
        raise ValueError(f"x: it and the weights must lie on {_ALIGNED} bytes, row by row")
    return TensorDescriptor(tensor, [*tensor.shape], [*tensor.stride()], [*box])


def convolve_boxes(  # noqa: PLR0917 - positions as its siblings have them
    rows: Tensor,
    run: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    *,
    box: Box,
    residual: Tensor | None = None,
    activation: str = "none",
    sms: int | None = None,
) -> Tensor:
    """activation(each sample convolved with its slot's weight + bias + residual): [S*k, O, OH, OW].

    `rows`, `x`, `weight`, `box`, `sms`: as in `box_launch`; `run` is not needed.
    `bias`: stack [T, O], or None.
    `padding`, `dilation`: one number each, or two, down and across.
    `residual`: as the output, or None.
    `activation`: one of `epilogue.ACTIVATIONS`.

    Raises ValueError for operands that the kernel does not take.
    """
    geometry = ConvolutionGeometry(padding=pair(padding), dilation=pair(dilation))
    epilogue = Epilogue(bias, residual, activation)
    y, launch = box_launch(rows, x, weight, geometry, epilogue, box=box, sms=sms)
    launch.run()
    return y
