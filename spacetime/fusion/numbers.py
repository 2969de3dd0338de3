"""Which tenant each slot names: the `index` that a caller gives, checked."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
SHOWN = 8  # numbers in a message


class Tabled(Protocol):
    """What knows the row of each tenant."""

    @property
    def table(self) -> Tensor: ...


def numbers_of(index: Any, inputs: Sequence[Tensor], stacks: Tabled) -> Tensor:
    """The tenants' numbers as int64 [S], one present tenant for each sample.

    `index`: a vector of whole numbers: a tensor, an array or a sequence.
    `inputs`: the call's tensors, S samples in each.
    `stacks`: what knows which tenants are present.

    Raises ValueError where `index` is something else or has another length, IndexError where it
    names a tenant that is not there.
    """
    samples = sorted({int(x.shape[0]) for x in inputs})
    whole = f"index: must be one whole number for each of {' or '.join(map(str, samples))} samples"
    numbers = _vector(index)
    if numbers is None:
        raise ValueError(f"{whole}, got {_kind(index)}")
    if samples != [len(numbers)]:
        raise ValueError(f"{whole}, got {len(numbers)}")
    if not len(numbers):
        raise ValueError("index: at least one slot is needed")
    rows = stacks.table
    outside = (numbers < 0) | (numbers >= len(rows))
    # Clamped, for a number outside has no row to look up; `outside` holds it already.
    outside |= rows[numbers.clamp(0, max(len(rows) - 1, 0))] < 0
    if bool(outside.any()):
        unknown = sorted(set(numbers[outside].tolist()))
        more = ", ..." if len(unknown) > SHOWN else ""
        names = ", ".join(map(str, unknown[:SHOWN])) + more
        raise IndexError(f"index: {names} names a tenant that is not in this family")
    return numbers


def is_number(value: Any) -> bool:
    """Whether a value is a whole number, of Python or numpy; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _vector(index: Any) -> Tensor | None:
    """An index as an int64 vector in the CPU's memory; None where it is no vector of whole
    numbers.
    """
    if isinstance(index, (list, tuple, range)):
        if not all(map(is_number, index)):
            return None
        try:
            return torch.tensor([int(n) for n in index], dtype=torch.int64)
        except (RuntimeError, ValueError, OverflowError):  # a number beyond int64
            return None
    if not isinstance(index, Tensor):
        try:
            index = torch.as_tensor(index)
        except (TypeError, ValueError, RuntimeError):
            return None
    if index.dtype not in _INTEGERS or index.dim() != 1 or index.device.type != "cpu":
        return None
    vector: Tensor = index.to(torch.int64)
    return vector


def _kind(index: Any) -> str:
    """What a caller gave instead of numbers, for the message."""
    if isinstance(index, Tensor):
        return f"{index.dtype} {list(index.shape)} on {index.device}"
    if isinstance(index, (list, tuple)):
        return f"a {type(index).__name__} with other values"
    return type(index).__name__
