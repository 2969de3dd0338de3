"""From tensors to a launch: what the kernels are called with, before anything is launched.

A `Launch` is a plain value, so that tests can compile it for a device that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from .configs import Config, Precision, Problem, candidates, depthwise_candidates
from .depthwise import depthwise
from .epilogue import ACTIVATIONS, finish
from .gemm import gemm

Pair = tuple[int, int]


_noted: ContextVar[list[Launch] | None] = ContextVar("noted", default=None)


@contextmanager
def noting() -> Iterator[list[Launch]]:
    """Inside the block this thread's launches are listed and not run; operands may be on the
    meta device.
    """
    listed: list[Launch] = []
    before = _noted.set(listed)
    try:
        yield listed
    finally:
        _noted.reset(before)


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel, its grid and its arguments by name; `programs` = 0 launches nothing."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    warps: int = 4
    stages: int = 1

    def run(self) -> None:
        """Launch the kernel, or list the launch inside `noting`."""
        noted = _noted.get()
        if noted is not None:
            noted.append(self)
        elif self.programs:
            self.kernel[(self.programs,)](
                **self.arguments, num_warps=self.warps, num_stages=self.stages
            )


@dataclass(frozen=True, slots=True)
class ConvolutionGeometry:
    """A 2-d convolution's numbers; a linear layer is a convolution of 1 x 1 pixels."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def out(self, size: Pair, kernel: Pair) -> Pair:
        """Height and width of the output. Raises ValueError where the window does not fit."""
        h, w = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                size, kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        if h < 1 or w < 1:
            raise ValueError(f"x: {size} pixels are fewer than the window {kernel} spans")
        return h, w


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What follows the sum: activation(sum + bias + residual)."""

    bias: Tensor | None = None  # stack [T, O]
    residual: Tensor | None = None  # as the output, channels last
    activation: str = "none"


def prepare(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: ConvolutionGeometry,
    epilogue: Epilogue,
    *,
    precision: Precision = "tf32x3",
    sms: int | None = None,
    config: Config | None = None,
) -> tuple[Tensor, list[Launch]]:
    """The output [S*k, O, OH, OW], channels last and not yet filled, and the launches that fill it.

    `rows`: int64 [S].
    `x`: [S*k, C, H, W].
    `weight`: stack [T, O, C / groups, kh, kw].
    `geometry`, `epilogue`: the convolution, and what follows the sum.
    `precision`: how float32 is multiplied.
    `sms`: of the partition; None means the whole device.
    `config`: the tiles; None takes the best guess.

    Raises ValueError for operands that the kernels do not take.
    """
    check(rows, x, weight, geometry, epilogue, precision=precision)
    size, window = (x.shape[2], x.shape[3]), (weight.shape[3], weight.shape[4])
    high, wide = geometry.out(size, window)
    y = x.new_empty(x.shape[0], high, wide, weight.shape[1])
    points = x.shape[0] // max(rows.shape[0], 1) * high * wide
    if y.numel() == 0:
        return y.permute(0, 3, 1, 2), []
    sms = sms if sms is not None else whole_device(x)
    bias, residual = epilogue.bias, epilogue.residual
    arguments = {
        **{"rows": rows, "x": x, "weight": weight, "bias": bias, "residual": residual, "y": y},
        **{"slots": rows.shape[0], "points": points, "weight_row": weight.stride(0)},
        **{"bias_row": 0 if bias is None else bias.stride(0), "ACTIVATION": epilogue.activation},
        **{"IN": size, "OUT": (high, wide), "KERNEL": window, "STRIDE": geometry.stride},
        **{"PADDING": geometry.padding, "DILATION": geometry.dilation},
        **{"X_STRIDES": strides(x), "W_STRIDES": strides(weight)[1:]},
    }
    if weight.shape[2] == 1 and geometry.groups == x.shape[1] > 1:
        launches = [_depthwise(arguments, sms, config)]
    else:
        launches = _gemm(arguments, geometry.groups, precision=precision, sms=sms, config=config)
    return y.permute(0, 3, 1, 2), launches


def _depthwise(arguments: dict[str, Any], sms: int, config: Config | None) -> Launch:
    """The launch of the depthwise kernel."""
    slots, points = arguments["slots"], arguments["points"]
    outputs = arguments["weight"].shape[1]
    config = config or depthwise_candidates(points, outputs)[0]
    tiles = slots * -(-points // config.block_m) * -(-outputs // config.block_n)
    sizes = {
        "OUTPUTS": outputs,
        "PER_CHANNEL": outputs // arguments["x"].shape[1],
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
    }
    programs = min(tiles, sms * config.programs_per_sm)
    return Launch(depthwise, programs, {**arguments, **sizes}, config.warps)


def _gemm(
    arguments: dict[str, Any],
    groups: int,
    *,
    precision: Precision,
    sms: int,
    config: Config | None,
) -> list[Launch]:
    """The launch of the product, and a second one that adds the parts where K is split."""
    weight, y = arguments["weight"], arguments["y"]
    problem = Problem(
        slots=arguments["slots"],
        points=arguments["points"],
        outputs=weight.shape[1] // groups,
        channels=weight.shape[2],
        taps=weight.shape[3] * weight.shape[4],
        groups=groups,
        itemsize=y.element_size(),
        precision=precision,
    )
    config = config or candidates(problem, sms=sms, capability=capability(y))[0]
    sizes = {
        **{"CHANNELS": problem.channels, "OUTPUTS": problem.outputs, "GROUPS": groups},
        **{"PRECISION": precision if problem.itemsize == 4 else "ieee", "SPLITS": config.splits},
        **{"BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k},
        **{"gathered": config.gathered(problem), "SHARED": config.gathered(problem) > 1},
    }
    programs = min(config.tiles(problem), sms * config.programs_per_sm)
    if config.splits == 1:
        return [Launch(gemm, programs, {**arguments, **sizes}, config.warps, config.stages)]
    sums = y.new_empty(config.splits, *y.shape, dtype=torch.float32)
    later = {"bias": None, "residual": None, "y": sums, "ACTIVATION": "none"}
    first = Launch(gemm, programs, {**arguments, **sizes, **later}, config.warps, config.stages)
    return [first, _finish(arguments, sums, sms)]


def _finish(arguments: dict[str, Any], sums: Tensor, sms: int) -> Launch:
    """The launch that adds the partial sums [SPLITS, M, O] of a split product."""
    taken = ("rows", "bias", "residual", "y", "points", "bias_row", "ACTIVATION")
    total, outputs = arguments["slots"] * arguments["points"], sums.shape[-1]
    sizes = {"OUTPUTS": outputs, "SPLITS": sums.shape[0], "BLOCK_M": 8, "BLOCK_N": 64}
    programs = min(-(-total // 8) * -(-outputs // 64), 8 * sms)
    kept = {name: arguments[name] for name in taken}
    return Launch(finish, programs, {**kept, "sums": sums, "total": total, **sizes}, 2)


def check(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: ConvolutionGeometry,
    epilogue: Epilogue,
    *,
    precision: Precision,
) -> None:
    """Raise ValueError, naming the argument, for what the kernels do not compute.

    The parameters are those of `prepare`.
    """
    operands = [t for t in (x, weight, epilogue.bias, epilogue.residual) if t is not None]
    if any(t.dtype != x.dtype for t in operands) or x.dtype not in _DTYPES:
        raise ValueError(f"dtype: {[t.dtype for t in operands]} must be one of {_DTYPES}")
    if rows.dtype != torch.int64 or rows.dim() != 1 or not rows.is_contiguous():
        raise ValueError("rows: must be a contiguous int64 vector, one row a slot")
    if x.dim() != 4 or weight.dim() != 5:
        raise ValueError(f"x: {x.dim()} and weight: {weight.dim()} dimensions, must be 4 and 5")
    if x.shape[0] % max(rows.shape[0], 1) or (x.shape[0] > 0) != (rows.shape[0] > 0):
        raise ValueError(f"x: {x.shape[0]} samples are no multiple of {rows.shape[0]} slots")
    if x.shape[1] != weight.shape[2] * geometry.groups or weight.shape[1] % geometry.groups:
        raise ValueError(
            f"weight: {tuple(weight.shape)} does not fit {x.shape[1]} channels in "
            f"{geometry.groups} groups"
        )
    if epilogue.activation not in ACTIVATIONS or precision not in get_args(Precision):
        raise ValueError(
            f"activation: {epilogue.activation!r} must be one of {ACTIVATIONS}, "
            f"precision: {precision!r} of {get_args(Precision)}"
        )


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def strides(x: Tensor) -> tuple[int, ...]:
    """The strides, 0 where a size is 1: the compiler then sees which addresses lie on 16 bytes."""
    return tuple(0 if n == 1 else step for n, step in zip(x.shape, x.stride(), strict=True))


def whole_device(x: Tensor) -> int:
    """How many SMs the device has that holds x. Raises ValueError where it has none."""
    if not x.is_cuda:
        raise ValueError(f"sms: give the partition's number of SMs; {x.device} has none")
    return int(torch.cuda.get_device_properties(x.device).multi_processor_count)


def capability(x: Tensor) -> int:
    """The compute capability of the device that holds x: 80, 90 and so on; 80, the least, for no
    device.
    """
    if not x.is_cuda:
        return 80
    major, minor = torch.cuda.get_device_capability(x.device)
    return major * 10 + minor


def pair(values: Sequence[int]) -> Pair:
    """Two numbers, given as one or two. Raises ValueError for any other count."""
    if len(values) not in (1, 2):
        raise ValueError(f"geometry: {list(values)} must be one or two numbers, for 2-d only")
    return int(values[0]), int(values[-1])
