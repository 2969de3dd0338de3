"""What a module does as it runs eagerly: which checks it makes, and whether its indexes are within.

For models that no captured graph holds, and to know that an exported graph raises what its module
does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spacetime.fusion.graph.nodes import named
from spacetime.fusion.indexes.guards import Guard
from spacetime.fusion.indexes.table import (
    ASSERT,
    BY_LIST,
    FLAT,
    LOSSES,
    TABLES,
    UNPOOLED,
    WRAPS,
    base_name,
    bounds,
)
from spacetime.kernels import bounds as kernel

RAISING = {*BY_LIST, *FLAT, *LOSSES, *TABLES, *UNPOOLED, *WRAPS, ASSERT}


class Raising(TorchDispatchMode):
    """Counts the operations that raise by what values they are given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += base_name(func) in RAISING
        return func(*args, **(kwargs or {}))


def raising(call: Callable[[], object]) -> int:
    """raising(call): how many operations of a call raise by what values they are given."""
    seen = Raising()
    with seen:
        call()
    return seen.count


class Within(TorchDispatchMode):
    """Keeps every index within its bounds, for a device on which one beyond would be the end.

    `check` afterwards raises what the operation would have raised, for the first one beyond.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._beyond: list[tuple[Guard, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = base_name(func)
        if name not in RAISING:
            return func(*args, **kwargs)
        given = named(func, args, kwargs)
        if name == ASSERT:
            self._note(name, str(given.get("assert_msg", "an assertion failed")), ~given["self"])
            return None
        for bound in bounds(func, given):
            whole = given[bound.argument]
            ids = whole if bound.place is None else whole[bound.place]
            out = kernel.beyond(ids, bound.low, bound.high, bound.also)
            self._note(name, bound.error, out)
            within: Any = kernel.clamped(ids, out)
            if bound.place is not None:
                within = [*whole[: bound.place], within, *whole[bound.place + 1 :]]
            given[bound.argument] = within
        return func(*_positional(func, given), **_by_name(func, given))

    def check(self) -> None:
        """Raises what the first index beyond stands for; waits for the device."""
        for guard, out in self._beyond:
            if bool(out):
                raise guard.raised() from None  # what garbage led to afterwards says nothing

    def _note(self, name: str, error: str, out: Tensor) -> None:
        self._beyond.append((Guard(name, error), torch.any(out)))


def within_bounds(module: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """within_bounds(module, inputs): what the module returns, on a device that an index beyond its
    bounds would end. Raises what the operation whose index is beyond raises on a CPU."""
    watch = Within()
    try:
        with watch:
            return module(*inputs)
    finally:
        watch.check()


def _positional(func: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    return [given[a.name] for a in func._schema.arguments if not a.kwarg_only]


def _by_name(func: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {a.name: given[a.name] for a in func._schema.arguments if a.kwarg_only}
