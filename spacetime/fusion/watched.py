"""What a module does while it runs eagerly: which checks it makes, and whether its indexes are
within their bounds.

This serves models that no captured graph can hold. It also tells whether an exported graph raises
the errors that its module raises.
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
    """Counts the operations that raise an error for some values of their operands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += base_name(func) in RAISING
        return func(*args, **(kwargs or {}))


def raising(call: Callable[[], object]) -> int:
    """How many operations of a call raise an error for some values of their operands."""
    seen = Raising()
    with seen:
        call()
    return seen.count


class Within(TorchDispatchMode):
    """Moves every index into its bounds, for a device on which an index beyond would end the
    process's use of it.

    `check`, called afterwards, raises the operation's own error for the first index that was
    beyond.
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
        """Raise the error that the first index beyond its bounds stands for. Waits for the
        device.
        """
        for guard, out in self._beyond:
            if bool(out):
                raise guard.raised() from None  # later errors follow from the moved index

    def _note(self, name: str, error: str, out: Tensor) -> None:
        """Keep what `check` will ask: the error, and whether any index was beyond."""
        self._beyond.append((Guard(name, error), torch.any(out)))


def within_bounds(module: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """What the module returns for these inputs, each index moved into its bounds.

    Raises the error that the operation raises on a CPU where its index was beyond. The device,
    which such an index would end, stays usable.
    """
    watch = Within()
    try:
        with watch:
            return module(*inputs)
    finally:
        watch.check()


def _positional(func: Any, given: Mapping[str, Any]) -> Sequence[Any]:
    """The arguments of an operation that are given by position, in the schema's order."""
    return [given[a.name] for a in func._schema.arguments if not a.kwarg_only]


def _by_name(func: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operation that are given by keyword only."""
    return {a.name: given[a.name] for a in func._schema.arguments if a.kwarg_only}
