"""Implementations of slot operations that only a CUDA device has: our Triton super-kernels, one for
each configuration, and cuBLAS by pointer array. None of them copies a weight.

A name says all that is chosen, "triton tf32x3 64x64x32 w4 s3 p1 k1", so that a choice can be kept
as text and made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import torch
from torch import Tensor

from spacetime.fusion.choice.by_pointer import NAME, by_pointer
from spacetime.fusion.choice.epilogues import Followed
from spacetime.fusion.choice.operation import Implementation, SlotOperation
from spacetime.kernels import triton

MOST_CONFIGS = 2  # timed for each precision; more would take long, each is compiled for each layer
_BOXES = "boxes"  # names the convolution whose tiles the tensor memory accelerator brings
_GEOMETRY = ("stride", "padding", "dilation", "groups")


def ways(
    operation: SlotOperation, args: Sequence[Any], *, sms: int, capability: int
) -> dict[str, Implementation]:
    """All implementations that a tuner times, by name: the operation's own, then super-kernels.

    `operation`, `args`: the slot operation and its operands, rows and run among them.
    `sms`: of the partition.
    `capability`: of the device, 90 for 9.0.
    """
    ours = super_kernels(operation, args, sms=sms, capability=capability)
    return {**operation.implementations, **ours}


def super_kernels(
    operation: SlotOperation, args: Sequence[Any], *, sms: int, capability: int
) -> dict[str, Implementation]:
    """The super-kernels worth timing on these operands, by name, of what is installed here.

    The parameters are those of `ways`.
    """
    geometry = _geometry(operation)
    kernels = by_pointer(operation, geometry)
    if not triton.available or geometry is None:
        return kernels
    for precision in _precisions(args[2], convolution=bool(geometry)):
        for config in _configs(args, geometry, precision, sms, capability):
            name = f"triton {precision}" + (f" {config.name}" if config is not None else "")
            kernels[name] = _kernel(operation, geometry, precision, config, sms)
    for box in _boxes(args, geometry, capability):
        kernels[f"triton {_BOXES} {box.name}"] = _kernel(operation, geometry, _BOXES, box, sms)
    return kernels


def super_kernel(operation: SlotOperation, name: str, *, sms: int) -> Implementation | None:
    """The super-kernel of this name; None where the name is none, or of one that no longer
    exists.
    """
    words = name.split(" ", 2)
    geometry = _geometry(operation)
    if name == NAME:
        return by_pointer(operation, geometry).get(NAME)
    if not triton.available or geometry is None or words[0] != "triton":
        return None
    try:
        read = _triton("boxes").boxed if words[1] == _BOXES else _triton("configs").named
        config = read(words[2]) if len(words) > 2 else None
    except ValueError:
        return None
    return _kernel(operation, geometry, words[1], config, sms)


def _geometry(operation: SlotOperation) -> dict[str, Any] | None:
    """The numbers that a convolution's kernel takes: none for a linear layer, None for anything
    else.
    """
    if operation.key.startswith("linear"):
        return {}
    grouped = operation.implementations.get("grouped")
    if isinstance(grouped, Followed):
        grouped = grouped.inner
    if not isinstance(grouped, partial) or not operation.key.startswith("convolution"):
        return None
    options = grouped.keywords
    if options["transposed"] or len(options["stride"]) != 2:
        return None
    return {name: options[name] for name in _GEOMETRY}


def _precisions(x: Tensor, *, convolution: bool) -> tuple[str, ...]:
    """The ways to multiply that are as exact as PyTorch's own may be here."""
    if x.dtype is not torch.float32:
        return ("ieee",)
    library = torch.backends.cudnn if convolution else torch.backends.cuda.matmul
    return ("tf32",) if library.allow_tf32 else ("tf32x3", "ieee")


def _configs(
    args: Sequence[Any], geometry: dict[str, Any], precision: str, sms: int, capability: int
) -> Iterator[Any]:
    """The configurations worth timing for these operands; None stands for the one of depthwise
    kernels.
    """
    rows, _, x, weight = args[:4]
    groups = geometry.get("groups", 1)
    if geometry and weight.shape[2] == 1 and groups == x.shape[1] > 1:
        yield None  # depthwise has one configuration of its own
        return
    configs = _triton("configs")
    slots = int(rows.shape[0])
    problem = configs.Problem(
        slots=slots,
        points=_points(x, weight, geometry) // slots if geometry else prod(x.shape[1:-1]),
        outputs=weight.shape[1] // groups,
        channels=weight.shape[2],
        taps=prod(weight.shape[3:]),
        groups=groups,
        itemsize=x.element_size(),
        precision=precision,
    )
    yield from configs.candidates(problem, sms=sms, capability=capability, most=MOST_CONFIGS)


def _boxes(args: Sequence[Any], geometry: dict[str, Any], capability: int) -> Iterator[Any]:
    """The boxes worth timing: for a convolution in half precision with windows of several
    pixels, stride 1 and one group.
    """
    x, weight = args[2:4]
    halves = x.dtype in {torch.bfloat16, torch.float16}
    if not geometry or not halves or prod(weight.shape[3:]) == 1:
        return
    if geometry["groups"] == 1 and set(geometry["stride"]) == {1}:
        out = _out(x, weight, geometry)
        candidates = _triton("boxes").box_candidates
        yield from candidates(out, weight.shape[2], weight.shape[1], capability=capability)


def _points(x: Tensor, weight: Tensor, geometry: dict[str, Any]) -> int:
    """How many pixels the output has, over all samples."""
    return int(x.shape[0] * prod(_out(x, weight, geometry)))


def _out(x: Tensor, weight: Tensor, geometry: dict[str, Any]) -> tuple[int, ...]:
    """The height and width of the output."""
    parts = zip(
        x.shape[2:],
        weight.shape[3:],
        geometry["stride"],
        geometry["padding"],
        geometry["dilation"],
        strict=True,
    )
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in parts)


def _kernel(
    operation: SlotOperation, geometry: dict[str, Any], precision: str, config: Any, sms: int
) -> Implementation:
    """The super-kernel as an implementation, with what follows the product."""
    first = next(iter(operation.implementations.values()))
    activation = first.activation if isinstance(first, Followed) else "none"
    options = {"precision": precision, "config": config, "sms": sms, "activation": activation}
    if precision == _BOXES:
        where = {name: geometry[name] for name in ("padding", "dilation")}
        chosen = {"box": config, "sms": sms, "activation": activation}
        kernel = partial(_triton("boxes").convolve_boxes, **where, **chosen)
    elif not geometry:
        kernel = partial(_triton("linear").linear_triton, **options)
    else:
        kernel = partial(_triton("convolution").convolve_triton, **geometry, **options)
    return partial(_with_residual, kernel) if "+ residual" in operation.key else kernel


def _with_residual(kernel: Implementation, *operands: Tensor) -> Tensor:
    """A kernel whose residual comes last, as it does in a library's implementation with a sum."""
    return kernel(*operands[:-1], residual=operands[-1])


def _triton(module: str) -> Any:
    """A module of `kernels/triton`, imported when asked for: importing Triton takes a second."""
    return import_module(f"spacetime.kernels.triton.{module}")
