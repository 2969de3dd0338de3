"""Rewrites of an exported graph that leave its values alone and make it cheaper to fuse.

Batch-norm becomes part of the convolution or linear layer before it, or a scale and a shift; the
arithmetic on weights is left in the graph, where `stacked_weights` computes it once per tenant.
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
    """simplify(module, weights, fold=True): the same function without identities and batch-norm.

    `weights` names the weight placeholders; `fold=False` keeps convolutions as they are.
    """
    graph = module.graph
    _drop_identities(graph)
    _products_to_linear(graph, weights)
    for node in list(graph.nodes):
        if node.target is BATCH_NORM:
            _rewrite_batch_norm(graph, node, weights, fold=fold)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _drop_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target in IDENTITIES:
            if node.target is aten.dropout.default and node.args[2]:
                continue
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in {aten.view.default, aten._unsafe_view.default}:
            # Without the copies above, a view may need one of its own.
            node.target = aten.reshape.default


def _products_to_linear(graph: fx.Graph, weights: frozenset[str]) -> None:
    """x @ W and b + x @ W with a weight W [K, N] become linear layers of its transpose."""
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
    with graph.inserting_before(node):
        turned = _transposed(graph, weight)
        linear = graph.call_function(aten.linear.default, (x, turned, bias))
        linear.meta.update(node.meta)
    node.replace_all_uses_with(linear)
    graph.erase_node(node)


def _transposed(graph: fx.Graph, weight: fx.Node) -> fx.Node:
    """The transpose of a weight; undoes one that is there, so that a tied weight stays one."""
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
    kind = kinds(graph, weights)
    a = bind(node)
    stats = [a["weight"], a["bias"], a["running_mean"], a["running_var"]]
    if any(isinstance(s, fx.Node) and kind[s] is NodeKind.SLOT for s in stats):
        return
    results = [u for u in node.users if u.target is operator.getitem]
    if any(u.args[1] != 0 for u in results) or len(results) != len(node.users):
        return
    with graph.inserting_before(node):
        scale = emit(graph, aten.rsqrt.default, emit(graph, aten.add.Scalar, stats[3], a["eps"]))
        if stats[0] is not None:
            scale = emit(graph, aten.mul.Tensor, stats[0], scale)
        shift = emit(graph, aten.neg.default, emit(graph, aten.mul.Tensor, stats[2], scale))
        if stats[1] is not None:
            shift = emit(graph, aten.add.Tensor, stats[1], shift)
        source = a["input"]
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
    a = bind(source)
    owned = [v for v in (a["weight"], a["bias"]) if v is not None]
    if any(kind[v] is not NodeKind.WEIGHT for v in owned):
        return False
    if source.target in TRANSPOSED:
        return bool(a["groups"] == 1)
    return source.target is not aten.linear.default or source.meta["val"].dim() == 2


def _folded(graph: fx.Graph, source: fx.Node, scale: fx.Node, shift: fx.Node) -> fx.Node:
    """The layer `source` with its output scaled and shifted by its weights."""
    a = bind(source)
    weight = a["weight"]
    shape = [1] * weight.meta["val"].dim()
    shape[1 if source.target in TRANSPOSED else 0] = -1
    turned = emit(graph, aten.reshape.default, scale, shape)
    a["weight"] = emit(graph, aten.mul.Tensor, weight, turned)
    if a["bias"] is not None:
        shift = emit(graph, aten.add.Tensor, emit(graph, aten.mul.Tensor, a["bias"], scale), shift)
    a["bias"] = shift
    layer = graph.call_function(source.target, tuple(a.values()))  # type: ignore[arg-type]
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
