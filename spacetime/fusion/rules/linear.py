"""Rules for operations that look along the slots in any dimension: linear and embedding."""

from __future__ import annotations

import torch
from torch import fx

from spacetime.fusion.graph.layout import Layout, slots_back, slots_first
from spacetime.fusion.graph.nodes import bind
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.kernels import onednn
from spacetime.kernels.embedding import embed_table
from spacetime.kernels.linear import linear_batched, linear_each

aten = torch.ops.aten


def linear(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: x [..., K] with each slot's weight [N, K]; the slots in any dimension but the last."""
    args = bind(node)
    x, weight, bias = args["input"], args["weight"], args["bias"]
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
    """Rule: each slot's ids looked up in the slot's own table."""
    args = bind(node)
    if not context.is_weight(args["weight"]) or context.is_weight(args["indices"]):
        raise NoRule("only slot ids in a weight table are fused")
    layout = context.layout(args["indices"])
    ids = _first(context, args["indices"], layout)
    table = context.new(args["weight"])
    y = context.operation("embedding", {"table": embed_table}, context.slots(), ids, table)
    return _back(context, y, layout)


def _first(context: Lowering, node: fx.Node, layout: Layout) -> fx.Node:
    """Write a value with its slots as the first dimension."""
    value: fx.Node = context.new(node)
    if layout.plain:
        return value
    place = (layout.dim, layout.outer, layout.inner)
    return context.graph.call_function(slots_first, (value, *place))


def _back(context: Lowering, node: fx.Node, layout: Layout) -> fx.Node:
    """Write a value with its slots back in the dimension where they were."""
    if layout.plain:
        return node
    return context.graph.call_function(slots_back, (node, layout.dim))


RULES = {aten.linear.default: linear, aten.embedding.default: embedding}
