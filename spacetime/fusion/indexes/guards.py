"""Guards: nodes before every index that a caller gives, so that no index leaves its tenant.

A guard is a node between an index and its use. On a CPU the use itself raises, so the guard lets
everything through; before an operation that is vectorised over tenants the guard checks. In a
captured graph nothing may raise: there the guard moves the index into its bounds, and a code for
each slot, one more output, names the guard whose index was beyond (`codes.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse
from spacetime.fusion.graph.nodes import bind, copied
from spacetime.fusion.indexes.table import (
    DIVISIONS,
    INDEX_ERRORS,
    SOLVERS,
    IndexBound,
    base_name,
    bounds,
)
from spacetime.kernels import bounds as kernel

# Wrappers, because a graph's nodes can name functions of Python only, not compiled ones.


def passed(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """A guard of an operation that raises by itself: the same indexes."""
    return ids


def checked(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """A guard that raises IndexError where an index is beyond its bounds; else the same indexes."""
    return kernel.checked(ids, low, high, also)


GUARDS = (passed, checked)
_VALUELESS = {  # operations that take the shape and type of an operand, not its values
    "zeros_like", "ones_like", "full_like", "empty_like",
    "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guard:
    """What a code stands for: the operation whose index was beyond, and the text of its error."""

    operation: str
    error: str

    def raised(self) -> Exception:
        """The error that the operation raises on a CPU: some raise IndexError, others
        RuntimeError.
        """
        return (
            IndexError(self.error) if self.operation in INDEX_ERRORS else RuntimeError(self.error)
        )


def guards_of(module: fx.GraphModule) -> tuple[Guard, ...]:
    """Every guard of a graph, in order. Code k + 1 stands for guard k."""
    return tuple(n.meta["guard"] for n in module.graph.nodes if n.target in GUARDS)


def guarded(module: fx.GraphModule, inputs: Collection[str]) -> fx.GraphModule:
    """A copy of a graph with a guard before every index that depends on an input.

    Raises CannotFuse where an index picks among the samples of the batch: an index beyond its own
    sample would read another caller's.
    """
    graph = copied(module.graph)
    given: set[fx.Node] = set()
    for node in list(graph.nodes):
        if (node.op == "placeholder" and node.name in inputs) or _depends(node, given):
            given.add(node)
        for bound in indexes(node):
            if operand_of(node, bound) in given:
                given.add(_insert(graph, node, bound))
    return fx.GraphModule(module, graph)


def indexes(node: fx.Node) -> list[IndexBound]:
    """The bounds of each index of a node; none where the node does not index."""
    if node.op != "call_function" or not base_name(node.target):
        return []
    return bounds(node.target, bind(node), _value)


def raises_otherwise(module: fx.GraphModule) -> str:
    """The name of an operation that raises for values which have no bounds, such as a singular
    matrix or an integer divided by 0; "" where there is none.
    """
    return next((base_name(n.target) for n in module.graph.nodes if _raises(n)), "")


def _raises(node: fx.Node) -> bool:
    """Whether a node is a solver, or divides whole numbers by a tensor."""
    name = base_name(node.target)
    if name not in DIVISIONS:
        return name in SOLVERS
    value = node.meta.get("val")
    whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    return whole and len(node.args) > 1 and isinstance(node.args[1], fx.Node)


def hides_indexes(module: Any) -> bool:
    """Whether a module in a graph holds operations that index."""
    return isinstance(module, fx.GraphModule) and any(map(indexes, module.graph.nodes))


def _value(operand: Any) -> Any:
    """An operand's value without data; an operand that is no node, as it is."""
    return operand.meta.get("val") if isinstance(operand, fx.Node) else operand


def _depends(node: fx.Node, given: set[fx.Node]) -> bool:
    """Whether a node's values, not only its shape, depend on what is given."""
    value = node.meta.get("val")
    numbers = isinstance(value, (int, torch.SymInt)) or base_name(node.target) in _VALUELESS
    return not numbers and any(n in given for n in node.all_input_nodes)


def operand_of(node: fx.Node, bound: IndexBound) -> Any:
    """The index that a bound is about."""
    operand = bind(node)[bound.argument]
    return operand if bound.place is None else operand[bound.place]


def _insert(graph: fx.Graph, node: fx.Node, bound: IndexBound) -> fx.Node:
    """Put a guard before one index of a node and return it."""
    operation = base_name(node.target)
    if not bound.known:
        raise CannotFuse(node.name, f"{operation}: an index picks among the samples of the batch")
    ids: fx.Node = operand_of(node, bound)
    with graph.inserting_before(node):
        guard = graph.call_function(passed, (ids, bound.low, bound.high, bound.also))
    guard.meta.update(val=ids.meta["val"], guard=Guard(operation, bound.error))
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    value: Any = guard
    if bound.place is not None:
        value = list(bind(node)[bound.argument])
        value[bound.place] = guard
    at = names.index(bound.argument)
    if at < len(node.args):
        node.update_arg(at, value)
    else:
        node.update_kwarg(bound.argument, value)
    return guard
