"""Facts about nodes of a graph: whose value a node is, its arguments by name, new nodes with
shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch import fx


class NodeKind(Enum):
    """Whose value a node is: a tenant's own, the slots', or the same for all."""

    WEIGHT = "weight"
    SLOT = "slot"
    SHARED = "shared"


def kinds(graph: fx.Graph, weights: Collection[str]) -> dict[fx.Node, NodeKind]:
    """The kind of every node. `weights` names the weight placeholders.

    A value computed from weights alone is a weight. A value that depends on an input, if only on
    the number of slots, is a slot value.
    """
    kind: dict[fx.Node, NodeKind] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            kind[node] = NodeKind.WEIGHT if node.name in weights else NodeKind.SLOT
            continue
        sources = {kind[n] for n in node.all_input_nodes}
        if NodeKind.SLOT in sources:
            kind[node] = NodeKind.SLOT
        elif NodeKind.WEIGHT in sources:
            kind[node] = NodeKind.WEIGHT
        else:
            kind[node] = NodeKind.SHARED
    return kind


def bind(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by their names in its schema, defaults filled in."""
    return named(node.target, node.args, node.kwargs)


def named(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that is no node, by their names in its schema, defaults filled in."""
    assert isinstance(target, torch._ops.OpOverload)
    schema = target._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema}
    bound.update(zip(bound, args, strict=False))
    return {**bound, **kwargs}


def emit(graph: fx.Graph, target: Callable[..., Any], *args: Any) -> fx.Node:
    """A new call whose node knows its value's shape, as the exporter's nodes do."""
    node = graph.call_function(target, args)
    values = fx.map_arg(args, lambda n: n.meta["val"])
    node.meta["val"] = target(*values)
    return node


def copied(graph: fx.Graph) -> fx.Graph:
    """A copy of a graph."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy


def operation_name(node: fx.Node) -> str:
    """The short name of what a node computes, as the report shows it."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return getattr(target, "__name__", str(target))


def draws_random(node: fx.Node) -> bool:
    """Whether a call's result differs from one call to the next."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    # Attention and dropout carry the tag even where they drop nothing.
    given = bind(node)
    return not (given.get("dropout_p") == 0 or given.get("train") is False)


def looks_at_values(module: fx.GraphModule) -> bool:
    """Whether a number of the graph is known only when the graph runs."""
    for node in module.graph.nodes:
        if node.op == "call_function" and operation_name(node) in {"item", "_local_scalar_dense"}:
            return True
        if not isinstance(node.target, torch._ops.OpOverload | str) and "cond" in str(node.target):
            return True
    return False
