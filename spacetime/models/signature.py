"""The shape of a tenant's requests: which tensors in which structure, and how to check one fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a request: its path in the call, its shape without the batch, its dtype."""

    path: str
    tail: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Signature:
    """Structure and leaves of one request of `tenant`; every leaf has the batch dimension first."""

    tenant: str
    spec: pytree.TreeSpec
    leaves: tuple[Leaf, ...]
    single: bool  # one positional tensor: the common case, checked without a tree walk
    places: tuple[torch.device, ...] = (torch.device("cpu"),)  # where its tensors may lie

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Tensor], int]:
        """Flat tensors and sample count of one request; InvalidInput names what does not fit."""
        if self.single and len(args) == 1 and not kwargs:
            x, leaf = args[0], self.leaves[0]
            if (
                isinstance(x, Tensor)
                and x.dtype is leaf.dtype
                and x.dim()
                and x.shape[1:] == leaf.tail
                and x.shape[0]
                and x.device in self.places
            ):
                return [x], x.shape[0]
        return self._check_slowly(args, kwargs)

    def _check_slowly(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Tensor], int]:
        flat, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if spec != self.spec:
            self._check_keywords(kwargs)
            self._refuse("inputs", f"structured like {_shape(self.spec)}", _shape(spec))
        samples: int | None = None
        for leaf, x in zip(self.leaves, flat, strict=True):
            self._check_leaf(leaf, x)
            if samples is not None and x.shape[0] != samples:
                self._refuse(leaf.path, f"a batch of {samples} like the first input", f"{len(x)}")
            samples = x.shape[0]
            if x.device != flat[0].device:
                self._refuse(f"{leaf.path} device", f"{flat[0].device} as the first", f"{x.device}")
        return flat, samples or 0

    def _check_keywords(self, given: Mapping[str, Any]) -> None:
        """Refuses a keyword the example had not, such as a misspelt option of submit."""
        _, known = pytree.tree_unflatten(["*"] * self.spec.num_leaves, self.spec)
        for name in given.keys() - known.keys():
            own = f"those of its example ({', '.join(known) or 'none'})"
            expected = f"left out: the keywords of a call are {own}, deadline_ms and priority"
            self._refuse(name, expected, f"{name}={given[name]!r:.40}")
        for name in known.keys() - given.keys():
            self._refuse(name, "given as a keyword, as in the example", "none")

    def _check_leaf(self, leaf: Leaf, x: object) -> None:
        if not isinstance(x, Tensor):
            self._refuse(leaf.path, "a torch.Tensor", type(x).__name__)
        elif x.dtype is not leaf.dtype:
            self._refuse(f"{leaf.path} dtype", str(leaf.dtype), str(x.dtype))
        elif x.device not in self.places:
            expected = " or ".join(map(str, self.places))
            self._refuse(f"{leaf.path} device", expected, str(x.device))
        elif not x.dim() or x.shape[1:] != leaf.tail:
            self._refuse(f"{leaf.path} shape", f"[batch, {_join(leaf.tail)}]", str(list(x.shape)))
        elif not x.shape[0]:
            self._refuse(f"{leaf.path} shape", "at least one sample", str(list(x.shape)))

    def _refuse(self, field: str, expected: str, got: str) -> None:
        raise InvalidInput(self.tenant, field, expected, got)


def signature_of(
    tenant: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    also: Sequence[torch.device] = (),
) -> Signature:
    """The signature that example inputs, on the CPU, stand for; their batch size does not matter.

    also: devices besides the CPU where a request's tensors may lie.
    """
    if not isinstance(args, (tuple, list)):
        expected = "a tuple of a call's positional inputs, such as (x,)"
        raise InvalidInput(tenant, "example_inputs", expected, type(args).__name__)
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        expected = "a dict of a call's keywords, such as {'mask': mask}"
        raise InvalidInput(tenant, "example_kwargs", expected, f"{kwargs!r:.40}")
    pairs, spec = pytree.tree_flatten_with_path((tuple(args), dict(kwargs)))
    leaves = []
    for path, x in pairs:
        name = _path(path)
        if not isinstance(x, Tensor) or not x.dim() or not x.shape[0]:
            got = f"{type(x).__name__}" + (
                f" of shape {list(x.shape)}" if hasattr(x, "shape") else ""
            )
            raise InvalidInput(tenant, name, "a tensor with a leading batch dimension", got)
        leaves.append(Leaf(name, x.shape[1:], x.dtype))
    if not leaves:
        raise InvalidInput(tenant, "example_inputs", "at least one tensor", "none")
    single = len(leaves) == 1 and len(args) == 1 and isinstance(args[0], Tensor)
    signature = Signature(tenant, spec, tuple(leaves), single)
    signature.check(args, kwargs)
    return replace(signature, places=(*signature.places, *also))


def _path(path: Sequence[Any]) -> str:
    """`inputs[0]` or `inputs['mask']` from a key path that starts with (args, kwargs)."""
    return "inputs" + "".join(str(key) for key in path[1:])


def _shape(spec: pytree.TreeSpec) -> str:
    """A structure on one line, `*` for each tensor: `(*, {'mask': *})`."""
    args, kwargs = pytree.tree_unflatten(["*"] * spec.num_leaves, spec)
    keywords = [f"{key}={value}" for key, value in kwargs.items()]
    return f"({', '.join([*map(str, args), *keywords])})".replace("'*'", "*")


def _join(tail: torch.Size) -> str:
    return ", ".join(str(n) for n in tail)
