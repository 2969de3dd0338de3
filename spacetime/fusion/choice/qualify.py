"""Which implementation of each slot operation runs: decided by trying them on real operands.

`qualify` drops implementations that fail or disagree with the others; `tune` times the rest for one
number of slots, within a budget, and remembers the result for equal operations of this process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.operation import SlotOperation

TOLERANCE = 1e-3  # between implementations; far above rounding, far below a wrong weight
ROUNDS = 5

_known: dict[tuple[Any, ...], str] = {}


class Visit(fx.Interpreter):
    """Runs a graph and shows each slot operation to `visit` with its operands."""

    def __init__(self, module: fx.GraphModule, visit: Any) -> None:
        super().__init__(module)
        self.extra_traceback = False  # it would follow our one-line messages
        self._visit = visit

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, SlotOperation):
            self._visit(str(target), module, args)
        return super().call_module(target, args, kwargs)


def qualify(module: fx.GraphModule, operands: Sequence[Tensor]) -> dict[str, str]:
    """qualify(module, operands): drop what does not work; why, by operation.

    Raises CannotFuse when nothing is left of an operation.
    """
    dropped: dict[str, str] = {}

    def visit(name: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        expected: Tensor | None = None
        # The last is the plainest: it sets what the others have to return.
        for implementation in reversed(list(operation.implementations)):
            try:
                result = operation.implementations[implementation](*args)
            except Exception as error:  # any failure of a kernel means "not this one"
                reason = _first_line(error)
            else:
                if expected is None or close(result, expected):
                    expected = result if expected is None else expected
                    continue
                reason = "its result differs"
            del operation.implementations[implementation]
            dropped[name] = f"{implementation}: {reason}"
        if not operation.implementations:
            raise CannotFuse(name, dropped[name])

    with torch.no_grad():
        Visit(module, visit).run(*operands)
    return dropped


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript wraps the error of an operator; the last line names it.
    said = lines[-1] if isinstance(error, torch.jit.Error) else next(iter(lines), "no message")
    return f"{type(error).__name__}: {said[:200]}"


def tune(module: fx.GraphModule, operands: Sequence[Tensor], budget_ms: float) -> None:
    """tune(module, operands, budget_ms): choose for the number of slots in operands[0].

    Operations left when the budget is used up keep their first implementation.
    """
    slots = int(operands[0].shape[0])
    until_ns = time.perf_counter_ns() + int(budget_ms * 1e6)

    def visit(_: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        if len(operation.implementations) < 2:
            return
        key = _key(operation, args)
        if key not in _known:
            if time.perf_counter_ns() > until_ns:
                return
            _known[key] = _fastest(operation, args)
        operation.chosen[slots] = _known[key]

    with torch.no_grad():
        Visit(module, visit).run(*operands)


def _key(operation: SlotOperation, args: Sequence[Any]) -> tuple[Any, ...]:
    """What a measurement depends on: the operation, its operands' shapes, the threads."""
    # A stack's first size is how many tenants there are, which a kernel's time does not depend on.
    shapes = [(a.shape[1:], a.dtype, a.device) if isinstance(a, Tensor) else a for a in args]
    names = tuple(operation.implementations)
    return operation.key, names, int(args[0].shape[0]), *shapes, torch.get_num_threads()


def _fastest(operation: SlotOperation, args: Sequence[Any]) -> str:
    """The implementation with the least best time over interleaved rounds."""
    # One thread's own time does not count what other lanes and processes take from it.
    clock = time.thread_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    best = dict.fromkeys(operation.implementations, float("inf"))
    for call in operation.implementations.values():
        call(*args)
    for _ in range(ROUNDS):
        for name, call in operation.implementations.items():
            begin = clock()
            call(*args)
            best[name] = min(best[name], clock() - begin)
    return min(best, key=lambda name: best[name])


def close(result: Tensor, expected: Tensor) -> bool:
    """close(result, expected): equal up to TOLERANCE of the largest value."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return False
    if not result.is_floating_point():
        return torch.equal(result, expected)
    scale = float(torch.nan_to_num(expected.abs()).max()) if expected.numel() else 0.0
    tolerance = max(TOLERANCE, 16 * torch.finfo(result.dtype).eps)
    return torch.allclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
