"""Rules for operations that look along the slots wherever they are: linear and embedding."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.layout import Layout
from spacetime.fusion.graph.nodes import bind
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.kernels import onednn
from spacetime.kernels.embedding import embed_table
from spacetime.kernels.linear import linear_batched, linear_each

aten = torch.ops.aten


def slots_first(value: Tensor, dim: int, outer: int, inner: int) -> Tensor:
    """slots_first: the slots of a value as its first dimension; its samples stay in place."""
    parts = value.reshape(*value.shape[:dim], outer, -1, inner, *value.shape[dim + 1 :])
    return parts.movedim(dim + 1, 0)


def slots_back(value: Tensor, dim: int) -> Tensor:
    """slots_back: undo slots_first."""
    return value.movedim(0, dim + 1).flatten(dim, dim + 2)


def linear(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: x [..., K] with each slot's weight [N, K], slots in any dimension but the last."""
    a = bind(node)
    x, weight, bias = a["input"], a["weight"], a["bias"]
    if context.is_weight(x) or not context.is_weight(weight):
        raise NoRule("only a slot value times a weight is fused")
    if bias is not None and not context.is_weight(bias):
        raise NoRule("its bias is not the tenant's own")
    layout = context.layout(x)
    if layout.dim == x.meta["val"].dim() - 1 or weight.meta["val"].dim() != 2:
        raise NoRule("the slots are the dimension it sums over")
    operands = context.new((weight, bias))
    choices = {"batched": linear_batched, "each": linear_each}
    if onednn.available:
        choices = {"batched": linear_batched, "oneDNN": onednn.linear_onednn, "each": linear_each}
    y = context.operation("linear", choices, context.slots(), _first(context, x, layout), *operands)
    return _back(context, y, layout)


def embedding(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: each slot's ids in its own table."""
    a = bind(node)
    if not context.is_weight(a["weight"]) or context.is_weight(a["indices"]):
        raise NoRule("only slot ids in a weight table are fused")
    layout = context.layout(a["indices"])
    ids = _first(context, a["indices"], layout)
    table = context.new(a["weight"])
    y = context.operation("embedding", {"table": embed_table}, context.slots(), ids, table)
    return _back(context, y, layout)


def _first(context: Lowering, node: fx.Node, layout: Layout) -> fx.Node:
    value: fx.Node = context.new(node)
    if layout.plain:
        return value
    place = (layout.dim, layout.outer, layout.inner)
    return context.graph.call_function(slots_first, (value, *place))


def _back(context: Lowering, node: fx.Node, layout: Layout) -> fx.Node:
    if layout.plain:
        return node
    return context.graph.call_function(slots_back, (node, layout.dim))


RULES = {aten.linear.default: linear, aten.embedding.default: embedding}
