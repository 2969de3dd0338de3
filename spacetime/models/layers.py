"""The layers of a model, for `cost`, from the graph that `fusion` exports.

Batch-norm is folded as it is when the model runs. What only looks at memory differently (a view)
costs nothing; every other operation is a launch. Work on weights alone is done once per tenant, so
it is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.fusion import Exported, export
from spacetime.fusion.graph.fold import CONVOLUTIONS, TRANSPOSED, simplify
from spacetime.fusion.graph.layout import shape_at
from spacetime.fusion.graph.nodes import NodeKind, bind, kinds
from spacetime.profiles.cost import Layer

aten = torch.ops.aten
PRODUCTS = frozenset(
    {
        aten.mm.default,
        aten.bmm.default,
        aten.matmul.default,
        aten.addmm.default,
        aten.baddbmm.default,
    }
)
ATTENTION = aten.scaled_dot_product_attention.default


def layers_of(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Layer, ...]:
    """The layers of an eval-mode model for one input, alike ones counted, in order of appearance.

    Raises CannotExport with one line for a model without a graph over any batch size.
    """
    exported = export(model, example_inputs, example_kwargs)
    weights = frozenset(exported.weights)
    graph = simplify(exported.module, weights, fold=True).graph
    reader = _Reader(exported, kinds(graph, weights))
    counts = Counter(layer for node in graph.nodes for layer in reader.read(node))
    return tuple(replace(layer, count=times) for layer, times in counts.items())


class _Reader:
    """Turns nodes into layers; sizes are those of one input."""

    def __init__(self, exported: Exported, kind: Mapping[fx.Node, NodeKind]) -> None:
        self.symbol = exported.symbol
        self.kind = kind

    def read(self, node: fx.Node) -> list[Layer]:  # noqa: PLR0911 - one line a kind of operation
        """The node's launch: one layer, or none for a view and for work on weights."""
        target = node.target
        if node.op != "call_function" or self.kind[node] is not NodeKind.SLOT:
            return []
        if not isinstance(node.meta.get("val"), Tensor) or _is_view(target):
            return []
        if target in CONVOLUTIONS or target in TRANSPOSED:
            return [self._convolution(node)]
        if target is aten.linear.default:
            return [self._linear(node)]
        if target in PRODUCTS:
            return [self._pairs(node)]
        if target is ATTENTION:
            return [self._attention(node)]
        if target is aten.embedding.default:  # reads the rows asked for, not the table
            return [Layer("move", values=2 * prod(self.shape(node)))]
        return [Layer("move", values=self._values(node), weights=self._weights(node))]

    def shape(self, node: Any) -> tuple[int, ...]:
        """Sizes of a node's value at one input."""
        return shape_at(node.meta["val"], self.symbol, 1)

    def _values(self, node: fx.Node) -> int:
        slots = [n for n in self._sources(node) if self.kind[n] is NodeKind.SLOT]
        return sum(prod(self.shape(n)) for n in (*slots, node))

    def _weights(self, node: fx.Node) -> int:
        own = [n for n in self._sources(node) if self.kind[n] is not NodeKind.SLOT]
        return sum(prod(self.shape(n)) for n in own)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]

    def _convolution(self, node: fx.Node) -> Layer:
        a = bind(node)
        groups = int(a["groups"])
        kernel = self.shape(a["weight"])
        turned = node.target in TRANSPOSED
        # Transposed: every input position is multiplied with the whole kernel [in, out/g, ...].
        rows = prod(self.shape(a["input"] if turned else node)[2:])
        n, k = kernel[0] // groups, prod(kernel[1:])
        if turned:
            n, k = k, n
        # A kernel over one channel fills no tile: it is bound by memory (depthwise).
        op = "move" if groups > 1 and k == prod(kernel[2:]) else "product"
        return Layer(op, rows, n, k, groups, self._values(node), self._weights(node))

    def _linear(self, node: fx.Node) -> Layer:
        *rows, inputs = self.shape(node.args[0])
        outputs = self.shape(node)[-1]
        return Layer(
            "product",
            prod(rows),
            outputs,
            inputs,
            values=self._values(node),
            weights=self._weights(node),
        )

    def _pairs(self, node: fx.Node) -> Layer:
        left = node.args[1 if node.target in {aten.addmm.default, aten.baddbmm.default} else 0]
        *groups, m, k = self.shape(left)
        n = self.shape(node)[-1] if len(self.shape(node)) > 1 else 1
        return Layer(
            "pairs",
            m,
            n,
            k,
            prod(groups),
            values=self._values(node),
            weights=self._weights(node),
        )

    def _attention(self, node: fx.Node) -> Layer:
        # One launch for both products, scores and answers: keys once, values once.
        *groups, queries, width = self.shape(node.args[0])
        keys = self.shape(node.args[1])[-2]
        return Layer(
            "pairs",
            queries,
            keys,
            2 * width,
            prod(groups),
            values=self._values(node),
            weights=self._weights(node),
        )


def _is_view(target: Any) -> bool:
    """Whether an operation's result lies in its input's memory."""
    if not isinstance(target, torch._ops.OpOverload):
        return True  # getitem, arithmetic on sizes
    info = [argument.alias_info for argument in target._schema.arguments]
    return any(alias is not None and not alias.is_write for alias in info)
