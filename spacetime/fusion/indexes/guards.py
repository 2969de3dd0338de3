"""Where a graph indexes by what a caller gave: told apart, so that no index leaves its tenant.

A guard is a node between an index and its use. On a CPU the use itself raises, so the guard lets
everything through; before an operation that is vectorised over tenants it checks. In a captured
graph nothing may raise: there it clamps, and a code for each slot, one more output, says which
guard found an index beyond (placed.py).
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

# A graph's nodes name functions of Python, not compiled ones.


def passed(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """passed(ids, ...): a guard of a use that raises by itself."""
    return ids


def checked(ids: Tensor, low: int, high: int, also: int | None) -> Tensor:
    """checked(ids, ...): a guard that raises IndexError."""
    return kernel.checked(ids, low, high, also)


GUARDS = (passed, checked)
_VALUELESS = {  # results that do not depend on the values of what they are made like
    "zeros_like", "ones_like", "full_like", "empty_like",
    "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guard:
    """What a code stands for: the operation whose index was beyond, and what it says of that."""

    operation: str
    error: str

    def raised(self) -> Exception:
        """What the operation itself raises on a CPU: some an IndexError, others a RuntimeError."""
        return (
            IndexError(self.error) if self.operation in INDEX_ERRORS else RuntimeError(self.error)
        )


def guards_of(module: fx.GraphModule) -> tuple[Guard, ...]:
    """guards_of(module): every guard of a graph, in order: guard k is code k + 1."""
    return tuple(n.meta["guard"] for n in module.graph.nodes if n.target in GUARDS)


def guarded(module: fx.GraphModule, inputs: Collection[str]) -> fx.GraphModule:
    """guarded(module, inputs): a copy with a guard before every index that depends on an input.

    Raises CannotFuse where an index picks among the samples of the batch: one that is out of its
    own sample would read another caller's.
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
    """indexes(node): the bounds of each index of a node; none for what does not index."""
    if node.op != "call_function" or not base_name(node.target):
        return []
    return bounds(node.target, bind(node), _value)


def raises_otherwise(module: fx.GraphModule) -> str:
    """raises_otherwise(module): the name of an operation that raises by values which have no
    bounds: a singular matrix, an integer divided by 0. "" where there is none."""
    return next((base_name(n.target) for n in module.graph.nodes if _raises(n)), "")


def _raises(node: fx.Node) -> bool:
    name = base_name(node.target)
    if name not in DIVISIONS:
        return name in SOLVERS
    value = node.meta.get("val")
    whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    return whole and len(node.args) > 1 and isinstance(node.args[1], fx.Node)


def hides_indexes(module: Any) -> bool:
    """hides_indexes(module): whether a module of a graph has operations that index inside."""
    return isinstance(module, fx.GraphModule) and any(map(indexes, module.graph.nodes))


def _value(operand: Any) -> Any:
    return operand.meta.get("val") if isinstance(operand, fx.Node) else operand


def _depends(node: fx.Node, given: set[fx.Node]) -> bool:
    """Whether a node's values, not only its shape, depend on what is given."""
    value = node.meta.get("val")
    numbers = isinstance(value, (int, torch.SymInt)) or base_name(node.target) in _VALUELESS
    return not numbers and any(n in given for n in node.all_input_nodes)


def operand_of(node: fx.Node, bound: IndexBound) -> Any:
    """operand_of(node, bound): the index that a bound is about."""
    operand = bind(node)[bound.argument]
    return operand if bound.place is None else operand[bound.place]


def _insert(graph: fx.Graph, node: fx.Node, bound: IndexBound) -> fx.Node:
    """Put a guard before one index of a node."""
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
