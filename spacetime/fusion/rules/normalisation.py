"""Rules for layer, group, instance and RMS normalisation: statistics, then each slot's affine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx

from spacetime.fusion.graph.nodes import bind
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.fusion.rules.arithmetic import aligned_shape
from spacetime.kernels.normalisation import affine

aten = torch.ops.aten


def layer_norm(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: normalisation over the last dimensions, the slots in any dimension before them."""
    args = bind(node)
    size = len(args["normalized_shape"])
    if context.layout(args["input"]).dim >= node.meta["val"].dim() - size:
        raise NoRule("the slots are among the normalised dimensions")
    return _normalise(context, node, trailing=0)


def channel_norm(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: normalisation over groups of channels, or single ones, of x [S, C, *space]."""
    args = bind(node)
    if context.layout(args["input"]).dim != 0:
        raise NoRule("the slots are not its batch dimension")
    if args.get("running_mean") is not None:
        raise NoRule("it uses running statistics")
    return _normalise(context, node, trailing=node.meta["val"].dim() - 2)


def _normalise(context: Lowering, node: fx.Node, *, trailing: int) -> fx.Node:
    """Write the normalisation without weights, then the scale and shift of each slot."""
    args = bind(node)
    x, scale, shift = args["input"], args["weight"], args.get("bias")
    if context.is_weight(x) or not all(v is None or context.is_weight(v) for v in (scale, shift)):
        raise NoRule("only its scale and shift may be weights")
    without: dict[str, Any] = {**args, "weight": None}
    if "bias" in args:
        without["bias"] = None
    target: Any = node.target
    y = context.graph.call_function(target, context.new(tuple(without.values())))
    layout = context.layout(node)
    owner = scale if isinstance(scale, fx.Node) else shift
    assert isinstance(owner, fx.Node)
    shape = tuple(int(n) for n in owner.meta["val"].shape)
    apply = partial(
        affine,
        shape=aligned_shape(shape, node.meta["val"].dim(), layout, trailing=trailing),
        slot_dim=layout.dim,
    )
    slots = context.slots(layout.outer, layout.inner)
    return context.operation("affine", {"gather": apply}, slots, y, *context.new((scale, shift)))


RULES = {
    aten.layer_norm.default: layer_norm,
    aten.rms_norm.default: layer_norm,
    aten.group_norm.default: channel_norm,
    aten.instance_norm.default: channel_norm,
}
