"""What a session keeps of a model: copies that nobody else holds, and a mould for new weights.

A tenant is a snapshot. Whatever its owner does with the module, or with the tensors that were given
as examples, after `add` has returned, changes no answer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput

_PLAIN = (Tensor, nn.Parameter)


def copied(inputs: Any) -> Any:
    """The same structure with tensors of its own, which want no gradient."""
    return pytree.tree_map(lambda x: alone(x) if isinstance(x, Tensor) else x, inputs)


def alone(x: Tensor) -> Tensor:
    """A copy that shares nothing with `x`, as plain memory: no gradient, nothing left to negate."""
    return x.detach().resolve_conj().resolve_neg().clone()


def snapshot(tenant: str, model: nn.Module) -> nn.Module:
    """A copy of the model as it is now. Raises InvalidInput where it cannot be copied."""
    return _copy(tenant, model, _detached(model))


class Mould:
    """A model without its weights: new weights are cast into a module of their own.

    What is no parameter and no part of the state dict is kept as it was. Scripted models keep their
    weights here too.
    """

    def __init__(self, tenant: str, model: nn.Module) -> None:
        empty = {id(x): _without_memory(x) for x in _in_state(model)}
        self._tenant = tenant
        self._empty = [*empty.values()]
        self._model = _copy(tenant, model, _detached(model) | empty)

    def cast(self, state: Mapping[str, Any]) -> nn.Module:
        """The model with a copy of these weights. Raises InvalidInput naming the key that does not
        fit; a key may be left out where another one names the same tensor."""
        whole = self._checked(state)
        memo: dict[int, Any] = {id(x): _with_memory(x) for x in self._empty}
        model: nn.Module = copy.deepcopy(self._model, memo)
        try:
            model.load_state_dict(whole)
        except Exception as why:
            reason = (str(why).strip() or type(why).__name__).splitlines()[-1].strip()
            raise self._wrong("", "one that the model's load_state_dict takes", reason) from why
        return model

    def _checked(self, state: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(state, Mapping):
            raise self._wrong("", "a mapping of keys to tensors", type(state).__name__)
        own = self._model.state_dict()
        for key in state:
            if key not in own:
                expected = "left out, for the model has no such key"
                raise self._wrong(f"['{key}']", expected, type(state[key]).__name__)
        whole = dict(state)
        for keys in _tied(own):
            given = [key for key in keys if key in state]
            if not given:
                raise self._wrong(f"['{keys[0]}']", "given", "nothing")
            for key in keys:
                whole.setdefault(key, state[given[0]])
                self._fits(key, own[key], whole[key])
                if not _equal(whole[key], whole[given[0]]):
                    expected = f"equal to '{given[0]}', with which it is tied"
                    raise self._wrong(f"['{key}']", expected, "other values")
        return whole

    def _fits(self, key: str, own: object, value: object) -> None:
        if not isinstance(own, Tensor):
            return  # extra state, which the model itself has to take
        if not isinstance(value, Tensor):
            raise self._wrong(f"['{key}']", "a tensor", type(value).__name__)
        if value.shape != own.shape or value.dtype != own.dtype:
            expected = f"{own.dtype} of shape {list(own.shape)}"
            raise self._wrong(f"['{key}']", expected, f"{value.dtype} of {list(value.shape)}")
        if value.is_meta:
            raise self._wrong(f"['{key}']", "a tensor with values", "one on the meta device")

    def _wrong(self, where: str, expected: str, got: str) -> InvalidInput:
        return InvalidInput(self._tenant, f"state_dict{where}", expected, got)


def _in_state(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, and buffers that a state dict holds, each tensor once."""
    seen: dict[int, Tensor] = {}
    for part in model.modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue  # holds its tensors where Python cannot replace them
        kept = [x for n, x in part._buffers.items() if n not in part._non_persistent_buffers_set]
        for x in (*part._parameters.values(), *kept):
            if x is not None and type(x) in _PLAIN and x.layout is torch.strided:
                seen.setdefault(id(x), x)
    return (x for x in seen.values() if not x.is_quantized)


def _without_memory(x: Tensor) -> Tensor:
    empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
    return nn.Parameter(empty, x.requires_grad) if isinstance(x, nn.Parameter) else empty


def _with_memory(x: Tensor) -> Tensor:
    real = torch.empty_like(x, device="cpu")
    return nn.Parameter(real, x.requires_grad) if isinstance(x, nn.Parameter) else real


def _detached(model: nn.Module) -> dict[int, Any]:
    """What deepcopy cannot copy itself, copied: tensors that were computed and want gradients, as
    old forms of weight normalisation leave them."""
    memo: dict[int, Any] = {}
    for part in model.modules():
        for x in vars(part).values():
            if isinstance(x, Tensor) and not x.is_leaf:
                memo[id(x)] = alone(x)
    return memo


def _copy(tenant: str, model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception:
        memo |= _uncopyable(model, memo)  # such as locks, which the copy then uses too
    try:
        return copy.deepcopy(model, memo)
    except Exception as why:
        reason = f"{type(why).__name__}: {why}".splitlines()[0]
        expected = "one that copy.deepcopy can copy, for a tenant is a snapshot"
        raise InvalidInput(tenant, "model", expected, reason) from why


def _uncopyable(model: nn.Module, memo: Mapping[int, Any]) -> dict[int, Any]:
    """The plain attributes of its modules that cannot be copied, as they are."""
    detached: dict[int, Any] = {}
    inside = {"_parameters", "_buffers", "_modules"}
    for part in model.modules():
        for name, value in vars(part).items():
            try:
                if name not in inside:
                    copy.deepcopy(value, dict(memo))
            except Exception:  # noqa: PERF203 - any failure means "not this one"
                detached[id(value)] = value
    return detached


def _tied(own: Mapping[str, Any]) -> Sequence[list[str]]:
    """The keys of a state dict, those of one tensor together."""
    groups: dict[Any, list[str]] = {}
    for key, x in own.items():
        # A state dict holds views of its own: what they look at is what they share.
        place: Any = key
        if isinstance(x, Tensor) and x.layout is torch.strided and x.numel():
            place = x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride()
        groups.setdefault(place, []).append(key)
    return [*groups.values()]


def _equal(a: object, b: object) -> bool:
    """Bit for bit, so that NaN equals NaN."""
    if a is b or not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is b
    return torch.equal(_bits(a), _bits(b))


def _bits(x: Tensor) -> Tensor:
    return alone(x).contiguous().flatten().view(torch.uint8)
