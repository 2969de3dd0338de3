"""What a module does with given inputs, operation by operation, as one digest.

Two modules that perform the same operations on the same operands (weights by their keys, constants
by their values) compute the same function of weights and inputs, as far as these inputs show it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from spacetime.fusion.graph.confine import shell
from spacetime.models.likeness import PLAIN, CannotTell, data_of


def performed(model: nn.Module, calls: Sequence[tuple[Any, Mapping[str, Any]]]) -> bytes:
    """performed(model, [(args, kwargs), ...]): the digest; the model stays as it was.

    Raises CannotTell where an operand has no value that can be said, and what the model raises.
    """
    own = shell(model)
    digest = hashlib.sha256()
    for call in calls:
        operations = _Operations(own, digest)
        args, kwargs = pytree.tree_map(operations.given, call)
        with torch.no_grad(), operations:
            answer = own(*args, **kwargs)
        leaves, spec = pytree.tree_flatten(answer)
        operations.say(repr(spec), leaves)
    return digest.digest()


class _Operations(TorchDispatchMode):
    def __init__(self, model: nn.Module, digest: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._digest = digest
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []  # an address names one tensor only while that lives
        for key, tensor in model.state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor):
                self._name(tensor, f"weight {key}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = [self._said(x) for x in pytree.tree_leaves((args, kwargs or {}))]
        _, spec = pytree.tree_flatten((args, kwargs or {}))
        answer = func(*args, **(kwargs or {}))
        self._digest.update(f"{func} {operands} {spec}\n".encode())
        for tensor in pytree.tree_leaves(answer):
            if isinstance(tensor, Tensor):
                self._digest.update(f"{self._name(tensor)} {_form(tensor)}\n".encode())
        return answer

    def given(self, x: Tensor) -> Tensor:
        """An input, which gets a name; a copy, for a model may write to it."""
        own = x.clone()
        self._name(own)
        return own

    def say(self, text: str, leaves: Sequence[Any]) -> None:
        """What the model returned."""
        self._digest.update(f"{text} {[self._said(x) for x in leaves]}\n".encode())

    def _name(self, tensor: Tensor, name: str = "") -> str:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = name or str(len(self._kept))
            self._kept.append(tensor)
        return self._names[id(tensor)]

    def _said(self, x: Any) -> str:
        if isinstance(x, Tensor):
            if id(x) in self._names:
                return f"%{self._names[id(x)]}"
            if type(x) not in {Tensor, nn.Parameter} or x.device.type != "cpu" or x.is_quantized:
                raise CannotTell(f"a tensor of type {type(x).__name__}")
            return f"{_form(x)} {hashlib.sha256(data_of(x)).hexdigest()}"
        if type(x) in PLAIN:
            return f"{x!r}"
        raise CannotTell(f"a {type(x).__name__} given to an operation")


def _form(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} {x.stride()} {x.device}"
