"""Rewrites of an exported graph that keep its values and make it cheaper to fuse.

Batch-norm becomes part of the convolution or linear layer before it, or a scale and a shift. The
arithmetic on weights stays in the graph; `stacked_weights` computes it once for each tenant.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.nodes import NodeKind, bind, emit, kinds

aten = torch.ops.aten

IDENTITIES = frozenset(
    {
        aten.clone.default,
        aten.alias.default,
        aten.detach.default,
        aten.dropout.default,
        aten.lift_fresh_copy.default,
    }
)
CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv1d.padding,
        aten.conv2d.padding,
        aten.conv3d.padding,
    }
)
TRANSPOSED = frozenset(
    {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
)
BATCH_NORM = aten._native_batch_norm_legit_no_training.default


def simplify(module: fx.GraphModule, weights: frozenset[str], *, fold: bool) -> fx.GraphModule:
    """Rewrite a graph in place: the same function without identities and without batch-norm.

    `module`: the graph.
    `weights`: the names of the weight placeholders.
    `fold`: whether batch-norm moves into the layer before it; else it is a scale and a shift.
    """
    graph = module.graph
    # A batch-norm folds into the layer just before it. So first goes what stands between them, and
    # products become layers.
    _drop_identities(graph)
    _products_to_linear(graph, weights)
    for node in list(graph.nodes):
        if node.target is BATCH_NORM:
            _rewrite_batch_norm(graph, node, weights, fold=fold)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _drop_identities(graph: fx.Graph) -> None:
    """Remove the operations that return their operand, and the checks that export added."""
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in IDENTITIES:
            if node.target is aten.dropout.default and node.args[2]:
                continue
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in {aten.view.default, aten._unsafe_view.default}:
            # The identities removed above were copies in places; a view may now need one itself.
            node.target = aten.reshape.default


def _products_to_linear(graph: fx.Graph, weights: frozenset[str]) -> None:
    """Write x @ W and b + x @ W, where W [K, N] is a weight, as linear layers of W's transpose."""
    kind = kinds(graph, weights)
    for node in list(graph.nodes):
        if node.target is aten.addmm.default and not set(node.kwargs) - {"beta", "alpha"}:
            if any(value != 1 for value in node.kwargs.values()):
                continue
            bias, x, weight = node.args
            if not (isinstance(bias, fx.Node) and bias.meta["val"].dim() == 1):
                continue
            if kind[bias] is not NodeKind.WEIGHT:
                continue
        elif node.target in {aten.mm.default, aten.matmul.default}:
            bias, (x, weight) = None, node.args
        else:
            continue
        if kind[weight] is not NodeKind.WEIGHT or kind[x] is not NodeKind.SLOT:
            continue
        if weight.meta["val"].dim() == 2 and x.meta["val"].dim() >= 2:
            _replace(graph, node, x, weight, bias)


def _replace(graph: fx.Graph, node: fx.Node, x: Any, weight: Any, bias: Any) -> None:
    """Put a linear layer in the place of a product."""
    with graph.inserting_before(node):
        turned = _transposed(graph, weight)
        linear = graph.call_function(aten.linear.default, (x, turned, bias))
        linear.meta.update(node.meta)
    node.replace_all_uses_with(linear)
    graph.erase_node(node)


def _transposed(graph: fx.Graph, weight: fx.Node) -> fx.Node:
    """The transpose of a weight. A transpose of a transpose is the weight itself, so that a tied
    weight stays one.
    """
    if weight.target is aten.t.default or (
        weight.target is aten.transpose.int
        and weight.args[1:] in {(0, 1), (1, 0), (-1, -2), (-2, -1)}
    ):
        source = weight.args[0]
        assert isinstance(source, fx.Node)
        return source
    return emit(graph, aten.t.default, weight)


def _rewrite_batch_norm(
    graph: fx.Graph, node: fx.Node, weights: frozenset[str], *, fold: bool
) -> None:
    """Write a batch-norm as scale and shift, computed from the statistics that the model keeps.

    It stays as it is where the statistics depend on slots, or where a result other than the first
    is used.
    """
    kind = kinds(graph, weights)
    args = bind(node)
    stats = [args["weight"], args["bias"], args["running_mean"], args["running_var"]]
    if any(isinstance(s, fx.Node) and kind[s] is NodeKind.SLOT for s in stats):
        return
    results = [u for u in node.users if u.target is operator.getitem]
    if any(u.args[1] != 0 for u in results) or len(results) != len(node.users):
        return
    with graph.inserting_before(node):
        scale = emit(graph, aten.rsqrt.default, emit(graph, aten.add.Scalar, stats[3], args["eps"]))
        if stats[0] is not None:
            scale = emit(graph, aten.mul.Tensor, stats[0], scale)
        shift = emit(graph, aten.neg.default, emit(graph, aten.mul.Tensor, stats[2], scale))
        if stats[1] is not None:
            shift = emit(graph, aten.add.Tensor, stats[1], shift)
        source = args["input"]
        if fold and _folds(source, kind):
            value = _folded(graph, source, scale, shift)
        else:
            value = _scaled(graph, source, scale, shift)
    for user in results:
        user.replace_all_uses_with(value)
        graph.erase_node(user)
    graph.erase_node(node)


def _folds(source: fx.Node, kind: dict[fx.Node, NodeKind]) -> bool:
    """Whether a batch-norm can move into the layer that makes its input."""
    if len(source.users) != 1 or source.target not in (
        CONVOLUTIONS | TRANSPOSED | {aten.linear.default}
    ):
        return False
    args = bind(source)
    owned = [v for v in (args["weight"], args["bias"]) if v is not None]
    if any(kind[v] is not NodeKind.WEIGHT for v in owned):
        return False
    if source.target in TRANSPOSED:  # [in, out / groups, ...]: only without groups is 1 all outputs
        return bool(args["groups"] == 1)
    # Batch-norm's channels are dimension 1, which a linear layer's outputs are only in a matrix.
    return source.target is not aten.linear.default or source.meta["val"].dim() == 2


def _folded(graph: fx.Graph, source: fx.Node, scale: fx.Node, shift: fx.Node) -> fx.Node:
    """The layer `source` with weights that scale and shift its output."""
    args = bind(source)
    weight = args["weight"]
    shape = [1] * weight.meta["val"].dim()
    shape[1 if source.target in TRANSPOSED else 0] = -1
    turned = emit(graph, aten.reshape.default, scale, shape)
    args["weight"] = emit(graph, aten.mul.Tensor, weight, turned)
    if args["bias"] is not None:
        shift = emit(
            graph, aten.add.Tensor, emit(graph, aten.mul.Tensor, args["bias"], scale), shift
        )
    args["bias"] = shift
    layer = graph.call_function(source.target, tuple(args.values()))  # type: ignore[arg-type]
    layer.meta.update(source.meta)
    return layer


def _scaled(graph: fx.Graph, source: fx.Node, scale: fx.Node, shift: fx.Node) -> fx.Node:
    """source * scale + shift along dimension 1."""
    value = source.meta["val"]
    assert isinstance(value, Tensor)
    shape = [-1] + [1] * (value.dim() - 2)
    s = emit(graph, aten.reshape.default, scale, shape)
    b = emit(graph, aten.reshape.default, shift, shape)
    node = graph.call_function(aten.addcmul.default, (b, source, s))
    node.meta.update(source.meta)
    return node
