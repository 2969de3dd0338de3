"""The rule of last resort: any operation, slot by slot, or by gathering and torch.func.vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.graph.layout import Layout, size_at, slots_back, slots_first
from spacetime.fusion.graph.nodes import NodeKind
from spacetime.fusion.indexes.guards import checked, hides_indexes, indexes, operand_of, passed
from spacetime.fusion.lower import Lowering, NoRule
from spacetime.kernels.slots import pick, take


class PerSlot:
    """One operation applied to each slot's samples with the slot's weights.

    `call`: takes the operands that differ from slot to slot, for one slot.
    `layouts`: the slot dimension of each such operand; None for a stack of weights.
    `result`: the layout of what the operation returns.
    """

    def __init__(
        self, call: Callable[..., Any], layouts: list[Layout | None], result: Layout
    ) -> None:
        self._call = call
        self._layouts = layouts
        self._result = result

    def move(self, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace the function that is applied to each slot by `change` of it."""
        self._call = change(self._call)

    def vmap(self, rows: Tensor, run: Tensor, *operands: Tensor) -> Tensor:
        """Gather every slot's weights, then make one call that is vectorised over the slots."""
        values = [
            take(value, rows, run) if layout is None else _split(value, layout)
            for value, layout in zip(operands, self._layouts, strict=True)
        ]
        return _join(torch.func.vmap(self._call)(*values), self._result)

    def each(self, rows: Tensor, run: Tensor, *operands: Tensor) -> Tensor:
        """Make one call for each slot, on views of the weights."""
        split = [
            value if layout is None else _split(value, layout)
            for value, layout in zip(operands, self._layouts, strict=True)
        ]
        results = [
            self._call(
                *(
                    pick(value, rows, slot) if layout is None else value[slot]
                    for value, layout in zip(split, self._layouts, strict=True)
                )
            )
            for slot in range(rows.shape[0])
        ]
        return _join(torch.stack(results), self._result)


def _split(value: Tensor, layout: Layout) -> Tensor:
    """Each slot's samples as [S, ...], with the dimension that they had."""
    parts = slots_first(value, layout.dim, layout.outer, layout.inner)
    return parts.flatten(layout.dim + 1, layout.dim + 2)


def _join(value: Tensor, layout: Layout) -> Tensor:
    """The value that `_split` took apart."""
    dim = layout.dim
    before, after = value.shape[: dim + 1], value.shape[dim + 2 :]
    return slots_back(value.reshape(*before, layout.outer, layout.inner, *after), dim)


def generic(context: Lowering, node: fx.Node) -> fx.Node:
    """Rule: any node with one tensor result, or a tuple of them, however it uses weights."""
    if not isinstance(node.meta.get("val"), Tensor):
        return _tuple(context, node)
    return _operation(context, node, None)


def _tuple(context: Lowering, node: fx.Node) -> fx.Node:
    """A node with several results as a tuple: one operation for each result that is used."""
    values = node.meta.get("val")
    if not isinstance(values, (tuple, list)):
        raise NoRule("its result is no tensor")
    used = {user.args[1] for user in node.users}
    parts = [
        _operation(context, node, position) if position in used else None
        for position in range(len(values))
    ]
    return context.graph.call_function(_pack, tuple(parts))


def _pack(*parts: Tensor | None) -> tuple[Tensor | None, ...]:
    """The results as a tuple, so that the users of each find it by its position."""
    return parts


def _operation(context: Lowering, node: fx.Node, position: int | None) -> fx.Node:
    """Write the slot operation for one result of a node; `position` None means the only one."""
    varying = [n for n in node.all_input_nodes if _varies(context, n)]
    layouts = [None if context.is_weight(n) else context.layout(n) for n in varying]
    per_slot = PerSlot(
        _call(context, node, varying, position), layouts, _result(context, node, position)
    )
    choices = {"vmap": per_slot.vmap, "each": per_slot.each}
    if _indexes_unseen(context, node):
        del choices["vmap"]  # an index beyond its bounds could read another tenant's weights in it
    for operand in node.all_input_nodes:
        if operand.target is passed:
            context.rewritten[operand].target = checked
    operands = context.new(tuple(varying))
    return context.operation(f"generic({node.name})", choices, context.slots(), *operands)


def _indexes_unseen(context: Lowering, node: fx.Node) -> bool:
    """Whether a node indexes by something that has no guard before it."""
    if node.op == "call_module":
        return hides_indexes(context.root.get_submodule(str(node.target)))
    return any(context.is_weight(operand_of(node, bound)) for bound in indexes(node))


def _varies(context: Lowering, node: fx.Node) -> bool:
    """Whether an operand is a tensor that differs from slot to slot."""
    return isinstance(node.meta.get("val"), Tensor) and (
        context.is_weight(node) or context.layouts[node] is not None
    )


def _result(context: Lowering, node: fx.Node, position: int | None) -> Layout:
    """Where the slots are in one result of a node."""
    if position is None:
        return context.layout(node)
    user = next(u for u in node.users if u.args[1] == position)
    return context.layout(user)


def _call(
    context: Lowering, node: fx.Node, varying: list[fx.Node], position: int | None
) -> Callable[..., Any]:
    """The node as a function of its varying operands, for one slot."""
    target: Any = node.target
    if node.op == "call_module":
        target = context.root.get_submodule(str(node.target))
    fixed = {n: _fixed(context, n) for n in node.all_input_nodes if n not in varying}

    def call(*operands: Tensor) -> Any:
        values = {**fixed, **dict(zip(varying, operands, strict=True))}
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
        result = target(*args, **kwargs)
        return result if position is None else result[position]

    return call


def _fixed(context: Lowering, node: fx.Node) -> Any:
    """The value of an operand that is the same for all slots: a size for one slot, or a
    constant.
    """
    if node.op == "get_attr" and context.kind[node] is NodeKind.SHARED:
        return getattr(context.root, str(node.target))
    value = node.meta.get("val")
    if isinstance(value, (int, torch.SymInt)):
        return size_at(value, context.symbol, 1)
    if isinstance(value, (float, bool)):
        return value
    raise NoRule(f"operand '{node.name}' is neither a tensor nor a size")
