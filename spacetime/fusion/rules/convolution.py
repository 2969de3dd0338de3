"""Rules for convolutions, plain and transposed, in one to three dimensions."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx

from spacetime.fusion.choice.operation import Implementation
from spacetime.fusion.graph.fold import CONVOLUTIONS, TRANSPOSED
from spacetime.fusion.graph.nodes import bind
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.kernels import onednn
from spacetime.kernels.convolution import convolve_each, convolve_grouped, convolve_unfolded
from spacetime.kernels.pointwise import convolve_pointwise

aten = torch.ops.aten


def convolution(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: a convolution of x [S*k, C, *space] with each slot's weight."""
    args = bind(node)
    x, weight, bias = args["input"], args["weight"], args["bias"]
    if context.is_weight(x) or not context.is_weight(weight):
        raise NoRule("only a slot value convolved with a weight is fused")
    if bias is not None and not context.is_weight(bias):
        raise NoRule("its bias is not the tenant's own")
    layout = context.layout(x)
    rank = weight.meta["val"].dim() - 2
    if layout.dim != 0 or x.meta["val"].dim() != rank + 2:
        raise NoRule("the slots are not its batch dimension")
    value = context.new(x)
    shape = _shape(args, rank, weight.meta["val"].shape[2:])
    if isinstance(args["padding"], str):
        value = _pad_same(context, value, shape)
    slots = context.slots() if layout.outer == 1 else context.slots(layout.outer, layout.inner)
    single = layout.outer * layout.inner == 1 or layout.outer != 1
    choices = _implementations(shape, rank, tuple(weight.meta["val"].shape), single=single)
    key = f"convolution({shape})"
    return context.operation(key, choices, slots, value, *context.new((weight, bias)))


def _shape(args: dict[str, Any], rank: int, kernel: Any) -> dict[str, Any]:
    """The convolution's numbers as the kernels take them: one of each for every dimension.

    "same" padding becomes numbers that are equal on both sides; `odd` tells where one more zero is
    needed at the end.
    """
    shape: dict[str, Any] = {
        name: _per_dimension(args[name], rank) for name in ("stride", "dilation")
    }
    padding = args["padding"]
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = [d * (int(k) - 1) // 2 for d, k in zip(shape["dilation"], kernel, strict=True)]
        odd = [d * (int(k) - 1) % 2 for d, k in zip(shape["dilation"], kernel, strict=True)]
        shape["odd"] = odd
    shape["padding"] = _per_dimension(padding, rank)
    shape["transposed"] = "output_padding" in args
    shape["output_padding"] = _per_dimension(args.get("output_padding", 0), rank)
    shape["groups"] = int(args["groups"])
    return shape


def _per_dimension(value: Any, rank: int) -> list[int]:
    """One number or a list of numbers as a list with one for each dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _pad_same(context: Lowering, value: fx.Node, shape: dict[str, Any]) -> fx.Node:
    """Pad one more zero at the end of each dimension whose "same" padding is odd."""
    odd = shape.pop("odd", [])
    if not any(odd):
        return value
    extra = [n for o in reversed(odd) for n in (0, o)]
    return context.graph.call_function(aten.constant_pad_nd.default, (value, extra))


def _implementations(
    shape: dict[str, Any], rank: int, weight: tuple[int, ...], *, single: bool
) -> dict[str, Implementation]:
    """Every kernel that covers these numbers, by name; the plainest comes last.

    `weight` is the shape [O, C / groups, *kernel]. `single` says whether a slot is one sample.
    """
    choices: dict[str, Implementation] = {"grouped": partial(convolve_grouped, **shape)}
    if rank == 2 and shape["groups"] == 1 and not shape["transposed"]:
        flat = {name: shape[name] for name in ("stride", "padding", "dilation")}
        if weight[2:] == (1, 1) and not any(shape["padding"]):
            choices["pointwise"] = partial(convolve_pointwise, stride=shape["stride"])
            if onednn.available:
                kernel = onednn.convolve_pointwise_onednn
                choices["oneDNN product"] = partial(kernel, stride=shape["stride"])
        elif single:
            choices["unfolded"] = partial(convolve_unfolded, **flat)
    return {**choices, "each": partial(convolve_each, **shape)}


RULES = dict.fromkeys(CONVOLUTIONS | TRANSPOSED, convolution)
