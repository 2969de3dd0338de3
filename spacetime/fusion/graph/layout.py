"""Where the slots are in each value of a graph.

A value's slot dimension has ``outer * S * inner`` entries: the slots, each spread over `inner`
neighbours and the whole repeated `outer` times. Reshapes move these numbers, nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse

aten = torch.ops.aten
RESHAPES = frozenset({aten.view.default, aten.reshape.default, aten._unsafe_view.default})


@dataclass(frozen=True, slots=True)
class Layout:
    """The slot dimension of a value, and how many samples surround each slot in it."""

    dim: int
    outer: int = 1
    inner: int = 1

    @property
    def plain(self) -> bool:
        """One sample a slot, slots first."""
        return self == Layout(0)


def size_at(size: Any, symbol: Any, slots: int) -> int:
    """size_at(size, symbol, slots): a symbolic size when the batch has that many slots."""
    if isinstance(size, torch.SymInt):
        return int(size.node.expr.subs(symbol, slots))
    return int(size)


def shape_at(value: Tensor, symbol: Any, slots: int) -> tuple[int, ...]:
    return tuple(size_at(s, symbol, slots) for s in value.shape)


class Layouts:
    """The layout of every tensor of a graph; None when a tensor has no slot dimension.

    Raises CannotFuse when a value has two slot dimensions or mixes the order of the samples.
    """

    def __init__(self, graph: fx.Graph, symbol: Any) -> None:
        self._symbol = symbol
        self._of: dict[fx.Node, Layout | None] = {}
        for node in graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, Tensor):
                self._of[node] = self._find(node, value)

    def __getitem__(self, node: fx.Node) -> Layout | None:
        return self._of.get(node)

    def _find(self, node: fx.Node, value: Tensor) -> Layout | None:
        two, three = (shape_at(value, self._symbol, n) for n in (2, 3))
        dims = [d for d, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
        if not dims:
            return None
        if len(dims) > 1:
            raise CannotFuse(node.name, f"its shape {list(value.shape)} holds the batch twice")
        dim = dims[0]
        if two[dim] * 3 != three[dim] * 2:
            raise CannotFuse(node.name, f"its size {value.shape[dim]} is no multiple of the batch")
        copies = two[dim] // 2
        if node.target in RESHAPES:
            return self._reshaped(node, two, dim, copies)
        if copies == 1:
            return Layout(dim)
        return self._inherited(node, dim, copies)

    def _reshaped(self, node: fx.Node, shape: tuple[int, ...], dim: int, copies: int) -> Layout:
        source = node.all_input_nodes[0]
        old = self._of.get(source)
        if old is None:
            raise CannotFuse(node.name, "reshapes a value without slots into one with slots")
        was = shape_at(source.meta["val"], self._symbol, 2)
        before = prod(was[: old.dim]) * old.outer
        after = prod(was[old.dim + 1 :]) * old.inner
        outer, left = divmod(before, prod(shape[:dim]))
        inner, right = divmod(after, prod(shape[dim + 1 :]))
        if left or right or outer * inner != copies:
            raise CannotFuse(node.name, "changes the order of the samples")
        return Layout(dim, outer, inner)

    def _inherited(self, node: fx.Node, dim: int, copies: int) -> Layout:
        pending, seen = list(node.all_input_nodes), set()
        while pending:
            source = pending.pop(0)
            layout = self._of.get(source)
            if layout is not None and layout.outer * layout.inner == copies:
                return Layout(dim, layout.outer, layout.inner)
            if source not in self._of and source not in seen:  # a tuple: look at what made it
                seen.add(source)
                pending.extend(source.all_input_nodes)
        raise CannotFuse(node.name, f"lays out {copies} samples a slot in an unknown order")
