"""Rules for bare parameters in arithmetic: each slot's weight, shaped so that it broadcasts."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.graph.nodes import bind
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.kernels.gather import gather_aligned

aten = torch.ops.aten


def aligned_shape(
    shape: tuple[int, ...], rank: int, layout: Layout, *, trailing: int = 0
) -> list[int]:
    """The shape [S, ...] of gathered weights that broadcast against a value once S is moved to the
    slot dimension.

    `shape`: one tenant's weight.
    `rank`: of the value that it meets.
    `layout`: where the slots are in that value.
    `trailing`: how many dimensions of size 1 follow the weight's own.

    Raises NoRule where the weight is not the same for all samples of a slot.
    """
    full = [1] * (rank - len(shape) - trailing) + list(shape) + [1] * trailing
    if len(full) != rank or full[layout.dim] != 1:
        raise NoRule("a weight differs along the slot dimension")
    return [-1, *full[: layout.dim], *full[layout.dim + 1 :]]


def aligned(
    context: Lowering, weight: fx.Node, rank: int, layout: Layout, *, trailing: int = 0
) -> fx.Node:
    """Write the gathering of each slot's weight so that it broadcasts against a value.

    The value has `rank` dimensions and its slots where `layout` says. `trailing` is as in
    `aligned_shape`.
    """
    own = tuple(int(n) for n in weight.meta["val"].shape)
    shape = aligned_shape(own, rank, layout, trailing=trailing)
    gather = partial(gather_aligned, shape=shape, slot_dim=layout.dim)
    slots = context.slots(layout.outer, layout.inner)
    return context.operation("gather", {"gather": gather}, slots, context.new(weight))


def pointwise(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: an elementwise operation with weights among its operands."""
    value = node.meta["val"]
    layout = context.layout(node)
    places: dict[fx.Node, fx.Node] = {}
    for weight in node.all_input_nodes:
        if not context.is_weight(weight):
            continue
        if weight.meta["val"].dim() == 0 and weight.meta["val"].dtype != value.dtype:
            raise NoRule("a scalar weight of another dtype would change the result's dtype")
        places[weight] = aligned(context, weight, value.dim(), layout)
    return context.graph.node_copy(node, lambda n: places.get(n) or context.rewritten[n])


def attention(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: scaled dot product attention whose mask, such as a position bias, is a weight."""
    args = bind(node)
    if not context.is_weight(args["attn_mask"]):
        raise NoRule("only its mask may be a weight")
    return pointwise(context, node)


def expand(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: a weight expanded or repeated over the batch becomes each slot's own."""
    weight = node.args[0]
    assert isinstance(weight, fx.Node)
    if not context.is_weight(weight):
        raise NoRule("only a weight is expanded")
    layout = context.layout(node)
    sizes = list(node.args[1])  # type: ignore[arg-type]
    places = aligned(context, weight, len(sizes), layout)
    same: Any = -1 if node.target is aten.expand.default else 1
    sizes[layout.dim] = same
    target: Any = node.target
    return context.graph.call_function(target, (places, context.new(sizes)))


def prelu(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: prelu with one weight, or with one for each channel (dimension 1)."""
    x, weight = node.args
    assert isinstance(x, fx.Node)
    assert isinstance(weight, fx.Node)
    value = x.meta["val"]
    if not context.is_weight(weight) or not isinstance(value, Tensor):
        raise NoRule("only its weight may be the tenant's own")
    layout = context.layout(x)
    trailing = value.dim() - 2 if value.dim() > 1 else 0
    slopes = aligned(context, weight, value.dim(), layout, trailing=trailing)
    return context.graph.call_function(aten._prelu_kernel.default, (context.new(x), slopes))


RULES = {
    aten.expand.default: expand,
    aten.repeat.default: expand,
    aten.prelu.default: prelu,
    aten._prelu_kernel.default: pointwise,
    aten.scaled_dot_product_attention.default: attention,
}


def is_pointwise(target: Any) -> bool:
    """Whether ATen says that an operation works element by element."""
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
