"""What follows a product is done with the product: a residual that is added, an activation.

On a device each operation is a launch that reads and writes its tensors. A super-kernel does what
follows on the tile that it still holds. A library's implementation does it afterwards, so that both
compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from spacetime.fusion.choice.operation import Implementation, SlotOperation

aten = torch.ops.aten

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
}
_NAMES = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.gelu.default: "gelu",
    aten.silu.default: "silu",
    aten.silu_.default: "silu",
    aten.hardswish.default: "hardswish",
    aten.hardswish_.default: "hardswish",
    aten.hardtanh.default: "relu6",
    aten.hardtanh_.default: "relu6",
}
_ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}


@dataclass(frozen=True, slots=True)
class Followed:
    """An implementation, then the sum with the residual that is given last, then the activation."""

    inner: Implementation
    activation: str

    def __call__(self, rows: Tensor, run: Tensor, *operands: Tensor) -> Tensor:
        """The first three operands are the inner implementation's (value, weight, bias), the
        rest residuals.
        """
        y = self.inner(rows, run, *operands[:3])
        for residual in operands[3:]:
            y = y + residual
        return ACTIVATIONS[self.activation](y)


def with_epilogues(module: fx.GraphModule) -> fx.GraphModule:
    """Join each product with the sum and the activation that alone use its result. The graph is
    changed in place.
    """
    for node in list(module.graph.nodes):
        operation = _operation(module, node)
        if operation is None or not operation.key.startswith(("convolution", "linear")):
            continue
        last, residual = _addition(node)
        activation = _activation(last)
        if activation is not None:
            last = next(iter(last.users))
        if last is node:
            continue
        _join(module, node, last, residual, activation or "none")
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _operation(module: fx.GraphModule, node: fx.Node) -> SlotOperation | None:
    """The slot operation that a node calls; None where it calls none."""
    if node.op != "call_module":
        return None
    part = module.get_submodule(str(node.target))
    return part if isinstance(part, SlotOperation) else None


def _addition(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """The sum that alone uses a product, and what is added to it; (the product, None) where
    there is none.
    """
    user = _only_user(node)
    if user is None or user.target not in _ADDITIONS or user.kwargs.get("alpha", 1) != 1:
        return node, None
    others = [n for n in user.args if n is not node]
    if len(others) != 1 or not isinstance(others[0], fx.Node):
        return node, None
    other = others[0]
    if _shape(other) is None or _shape(other) != _shape(user):
        return node, None  # what is added is broadcast, which no kernel does
    return user, other


def _activation(node: fx.Node) -> str | None:
    """The name of the activation that alone uses a value; None where there is none."""
    user = _only_user(node)
    if user is None or user.target not in _NAMES:
        return None
    name = _NAMES[user.target]
    if name == "relu6" and tuple(user.args[1:]) != (0.0, 6.0):
        return None
    if name == "gelu" and user.kwargs.get("approximate", "none") != "none":
        return None
    return name


def _only_user(node: fx.Node) -> fx.Node | None:
    """The one call that uses a node; None where there are several or another kind of node."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def _shape(node: fx.Node) -> tuple[object, ...] | None:
    """A node's shape and type, symbolic sizes as text; None where it is no tensor."""
    value = node.meta.get("val")
    return (*map(str, value.shape), value.dtype) if isinstance(value, Tensor) else None


def _join(
    module: fx.GraphModule, node: fx.Node, last: fx.Node, residual: fx.Node | None, activation: str
) -> None:
    """Put one slot operation in the place of a product and what follows it."""
    operation = _operation(module, node)
    assert operation is not None
    followed = {name: Followed(f, activation) for name, f in operation.implementations.items()}
    key = f"{operation.key}{'' if residual is None else ' + residual'} {activation}"
    joined = SlotOperation(key, followed)
    target = f"{node.target}_{activation}"
    module.add_submodule(target, joined)
    extra = () if residual is None else (residual,)
    with module.graph.inserting_before(last):
        call = module.graph.call_module(target, (*node.args, *extra))
    call.meta.update(last.meta)
    last.replace_all_uses_with(call)
