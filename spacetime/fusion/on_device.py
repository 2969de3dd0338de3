"""A slot graph on a CUDA device: its constants lie there, and only what can be captured is left.

A captured graph may not look at a tensor's values on the host. So implementations that walk over
the rows there (`each`), or that belong to a CPU's library, are left out.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.epilogues import with_epilogues
from spacetime.fusion.choice.operation import Implementation, SlotOperation
from spacetime.fusion.graph.export import Exported
from spacetime.fusion.graph.layout import Layouts
from spacetime.fusion.graph.nodes import copied
from spacetime.fusion.indexes.codes import with_codes
from spacetime.fusion.indexes.guards import GUARDS, Guard, guarded, guards_of
from spacetime.fusion.rules.generic import PerSlot
from spacetime.fusion.slots import SlotGraph

HOST_ONLY = {"each", "oneDNN", "oneDNN product"}


def placed(graph: SlotGraph, device: torch.device) -> fx.GraphModule:
    """The graph over slots on a device, with slot operations of its own: from (rows, run, *stacks,
    *inputs) to outputs.

    Where the graph has guards there is one more output, int64 [S]. It is 0, or the code of the
    guard that found an index of the slot beyond its bounds; the slot's other outputs then mean
    nothing. Raises CannotFuse where an operation has no implementation left.
    """
    return with_epilogues(with_codes(_on(graph.lowered.module, device)))


def placed_alone(
    exported: Exported, device: torch.device
) -> tuple[fx.GraphModule, tuple[Guard, ...]]:
    """The exported graph of one tenant on a device, from (rows, *weights, *inputs) to outputs and
    codes, as `placed` returns them; and its guards.

    Raises CannotFuse where an index is shared by all samples, so that no code can say which sample
    was wrong.
    """
    module = guarded(exported.module, exported.inputs)
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        module.graph.placeholder("slot_rows")
    layouts = Layouts(module.graph, exported.symbol)
    for node in module.graph.nodes:
        if node.target in GUARDS:
            node.meta["layout"] = layouts[node]
    return with_codes(_on(module, device)), guards_of(module)


def _on(module: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """A copy whose constants lie on `device` and which creates its tensors there."""

    def there(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    graph = copied(module.graph)
    root: dict[str, Any] = {}
    for node in graph.nodes:
        node.args = map_aggregate(node.args, there)
        node.kwargs = map_aggregate(node.kwargs, there)
        if node.op in {"get_attr", "call_module"}:
            target = str(node.target)
            root[target] = _part(target, _attribute(module, target), device)
    return fx.GraphModule(root, graph)


def _attribute(module: nn.Module, path: str) -> Any:
    """The attribute of a module at a dotted path."""
    part: Any = module
    for name in path.split("."):
        part = getattr(part, name)
    return part


def _part(name: str, part: Any, device: torch.device) -> Any:
    """A constant, slot operation or nested graph of a module, for `device`."""
    if isinstance(part, SlotOperation):
        return _operation(name, part, device)
    if isinstance(part, fx.GraphModule):
        return _on(part, device)
    # Kernels read `run` on the host, so `no_run` stays there.
    return part.to(device) if isinstance(part, Tensor) and name != "no_run" else part


def _operation(name: str, operation: SlotOperation, device: torch.device) -> SlotOperation:
    """A slot operation with the implementations that a captured graph can hold."""
    kept = {n: f for n, f in operation.implementations.items() if n not in HOST_ONLY}
    if not kept:
        raise CannotFuse(name, f"{operation.key} has no implementation that a graph can hold")
    return SlotOperation(operation.key, {n: _moved(f, device) for n, f in kept.items()})


def _moved(implementation: Implementation, device: torch.device) -> Implementation:
    """An implementation for `device`. One of the generic rule holds a graph, whose constants
    have to move.
    """
    owner = getattr(implementation, "__self__", None)
    if not isinstance(owner, PerSlot):
        return implementation
    moved = copy.copy(owner)
    moved.move(lambda call: _on(call, device) if isinstance(call, fx.GraphModule) else call)
    method: Implementation = getattr(moved, implementation.__name__)
    return method
