"""Where the slots are in each value of a graph.

A value's slot dimension has `outer * S * inner` entries: each slot is spread over `inner`
neighbours, and the whole is repeated `outer` times. Reshapes change these numbers, nothing else
does.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        """Whether the slots are the first dimension, with one sample each."""
        return self == Layout(0)

    def reshaped(
        self, old: Sequence[int], new: Sequence[int], dim: int, copies: int
    ) -> Layout | None:
        """The layout after a reshape; None where the samples come into another order.

        `old`, `new`: the shapes before and after, for the same number of slots.
        `dim`: the slot dimension afterwards.
        `copies`: how many samples a slot has in it.
        """
        before = prod(old[: self.dim]) * self.outer
        after = prod(old[self.dim + 1 :]) * self.inner
        outer, left = divmod(before, prod(new[:dim]))
        inner, right = divmod(after, prod(new[dim + 1 :]))
        if left or right or outer * inner != copies:
            return None
        return Layout(dim, outer, inner)


def size_at(size: Any, symbol: Any, slots: int) -> int:
    """A symbolic size as the number that it is where the batch, `symbol`, has `slots` slots."""
    if isinstance(size, torch.SymInt):
        return int(size.node.expr.subs(symbol, slots))
    return int(size)


def shape_at(value: Tensor, symbol: Any, slots: int) -> tuple[int, ...]:
    """A symbolic shape as the numbers that it holds where the batch, `symbol`, has `slots`
    slots.
    """
    return tuple(size_at(s, symbol, slots) for s in value.shape)


class Layouts:
    """The layout of every tensor of a graph; None where a tensor has no slot dimension.

    Raises CannotFuse where a value has two slot dimensions or mixes the order of the samples.
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
        """A value's layout, from how its shape grows between two and three slots."""
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
        """The layout of a reshape's result, which follows from its operand's."""
        source = node.all_input_nodes[0]
        old = self._of.get(source)
        if old is None:
            raise CannotFuse(node.name, "reshapes a value without slots into one with slots")
        was = shape_at(source.meta["val"], self._symbol, 2)
        layout = old.reshaped(was, shape, dim, copies)
        if layout is None:
            raise CannotFuse(node.name, "changes the order of the samples")
        return layout

    def _inherited(self, node: fx.Node, dim: int, copies: int) -> Layout:
        """The layout of the nearest operand with as many samples a slot."""
        pending, seen = list(node.all_input_nodes), set()
        while pending:
            source = pending.pop(0)
            layout = self._of.get(source)
            if layout is not None and layout.outer * layout.inner == copies:
                return Layout(dim, layout.outer, layout.inner)
            if source not in self._of and source not in seen:  # a tuple: look at its operands
                seen.add(source)
                pending.extend(source.all_input_nodes)
        raise CannotFuse(node.name, f"lays out {copies} samples a slot in an unknown order")


def slots_first(value: Tensor, dim: int, outer: int, inner: int) -> Tensor:
    """A value with its slots as the first dimension [S, ...]; the samples of a slot stay in their
    order.

    `value`: [..., outer * S * inner, ...].
    `dim`: the slot dimension.
    `outer`, `inner`: as in `Layout`.
    """
    parts = value.reshape(*value.shape[:dim], outer, -1, inner, *value.shape[dim + 1 :])
    return parts.movedim(dim + 1, 0)


def slots_back(value: Tensor, dim: int) -> Tensor:
    """A value with its slots where `slots_first` took them from."""
    return value.movedim(0, dim + 1).flatten(dim, dim + 2)
