"""What add() is given, made a module that can be served; what it was given is never changed.

`served` unwraps what compiles or exports a model, and refuses in one line what cannot be served;
`copied` is the copy that a lane on another device, or with weights of its own, needs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from spacetime.errors import InvalidInput, reason_of
from spacetime.fusion.graph.training import is_exported, part_in_training

CPU = torch.device("cpu")
_MODES = ("train", "training", "is_training", "use_input_stats")  # of operators: true in training
_TRACED: Any = getattr(torch.jit, "TopLevelTracedModule")  # noqa: B009 - not in its stub
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def served(tenant: str, given: Any) -> nn.Module:
    """The module that answers for `given`, on the CPU and in eval mode.

    given: a module, also scripted, traced, compiled or exported, on any device; or an
    ExportedProgram. Raises InvalidInput naming `model`, or the part that is wrong.
    """
    model = given.module() if isinstance(given, ExportedProgram) else given
    if not isinstance(model, nn.Module):
        raise InvalidInput(tenant, "model", f"a torch.nn.Module{_instead(given)}", _kind(given))
    try:
        parts = dict(model.named_modules())
    except AttributeError:
        expected = f"initialised (call super().__init__() first in {_kind(model)}.__init__)"
        raise InvalidInput(tenant, "model", expected, "a module that is not") from None
    for path, part in parts.items():
        if is_exported(part):
            _check_graph(tenant, path, part)
    if (path := part_in_training(model)) is not None:
        _refuse_training(tenant, path, parts[path])
    _check_tensors(tenant, model)
    if isinstance(model, _PARALLEL):
        model = model.module
    if any(map(_compiled, parts.values())):
        model = _uncompiled(model, {})
    if any(tensor.device != CPU for _, tensor in _tensors(model)):
        model = copied(tenant, model, CPU)
    return model


def copied(tenant: str, model: nn.Module, device: torch.device | None = None) -> nn.Module:
    """A deep copy, its parameters and buffers on `device` at once. Raises InvalidInput."""
    memo: dict[int, Any] = {}
    for part in model.modules():
        for value in vars(part).values() if not isinstance(part, torch.jit.ScriptModule) else ():
            # Left by a forward pass, as weight_norm does; deepcopy takes no such tensor.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    if device is not None:
        for _, tensor in _tensors(model):
            if tensor.device != device:
                moved: Tensor = tensor.detach().to(device)
                whole = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if whole else moved
    try:
        return copy.deepcopy(model, memo)
    except Exception as why:  # whatever a part of it raises
        expected = "one that copy.deepcopy copies"
        got = f"{type(why).__name__}: {reason_of(why)}"
        raise InvalidInput(tenant, "model", expected, got) from why


def _check_graph(tenant: str, path: str, part: nn.Module) -> None:
    operator = _in_training(part)
    if operator is not None:
        expected = "exported in eval mode (call eval() on it before torch.export.export)"
        got = f"training mode in {path or 'the model itself'}: {operator}"
        raise InvalidInput(tenant, "model", expected, got)


def _refuse_training(tenant: str, path: str, part: nn.Module) -> None:
    expected = "in eval mode (call model.eval())"
    if isinstance(part, _TRACED):
        expected = "in eval mode when it is traced (call eval() on it before torch.jit.trace)"
    raise InvalidInput(tenant, "model", expected, f"training mode in {path or 'the model itself'}")


def _in_training(graph: Any) -> str | None:
    """An operator of an exported graph that does what only training does."""
    for node in graph.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        given = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
        if any((given | node.kwargs).get(name) is True for name in _MODES):
            return str(node.target)
    return None


def _check_tensors(tenant: str, model: nn.Module) -> None:
    for path, tensor in _tensors(model):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            expected = "initialised (call the model once on an example, or load its weights)"
            raise InvalidInput(tenant, f"model.{path}", expected, "a lazy parameter")
        if tensor.device.type == "meta":
            expected = "on a device with data (model.to_empty(device='cpu'), then load its weights)"
            raise InvalidInput(tenant, f"model.{path}", expected, "meta")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _compiled(part: nn.Module) -> bool:
    return hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None


def _uncompiled(module: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    """The same tensors and parts in module objects of their own, without torch.compile's."""
    original = getattr(module, "_orig_mod", module)
    if isinstance(original, torch.jit.ScriptModule):
        return original
    if original not in twins:
        twins[original] = twin = object.__new__(type(original))
        vars(twin).update(vars(original) | {"_compiled_call_impl": None})
        children = original._modules.items()
        vars(twin)["_modules"] = {
            name: None if child is None else _uncompiled(child, twins) for name, child in children
        }
    return twins[original]


def _kind(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _instead(given: object) -> str:
    """What to do about something that is no module."""
    if isinstance(given, type):
        return f" (an instance: {given.__name__}(...))"
    if isinstance(given, (str, bytes)) or hasattr(given, "__fspath__"):
        return " (load the file first, such as with torch.jit.load or torch.export.load)"
    if isinstance(given, dict):
        return " (load the state dict into one with load_state_dict)"
    if callable(given):
        return " (call the function in the forward of one)"
    return ""
