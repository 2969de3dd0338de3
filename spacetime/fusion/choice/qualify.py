"""Which implementations of a slot operation work: decided by running them on real operands.

An implementation that fails, or that disagrees with the plainest one, is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.operation import SlotOperation

TOLERANCE = 1e-3  # between implementations; far above rounding, far below a wrong weight


class Visit(fx.Interpreter):
    """Runs a graph and shows each slot operation to `visit` with its operands."""

    def __init__(self, module: fx.GraphModule, visit: Any) -> None:
        super().__init__(module)
        self.extra_traceback = False  # it would be printed after our one-line messages
        self._visit = visit

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, SlotOperation):
            self._visit(str(target), module, args)
        return super().call_module(target, args, kwargs)


def qualify(module: fx.GraphModule, operands: Sequence[Tensor]) -> dict[str, str]:
    """Drop the implementations that do not work; return why, by the name of the operation.

    Raises CannotFuse where an operation has none left.
    """
    dropped: dict[str, str] = {}

    def visit(name: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        expected: Tensor | None = None
        # From the last, which is the plainest: its result is what the others have to return.
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
    """An error as one line: its type and what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript wraps an operator's error in lines of its own; the last line holds the error.
    said = lines[-1] if isinstance(error, torch.jit.Error) else next(iter(lines), "no message")
    return f"{type(error).__name__}: {said[:200]}"


def close(result: Tensor, expected: Tensor) -> bool:
    """Whether a result equals the expected one, up to TOLERANCE times the largest value."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return False
    if not result.is_floating_point():
        return torch.equal(result, expected)
    scale = float(torch.nan_to_num(expected.abs()).max()) if expected.numel() else 0.0
    tolerance = max(TOLERANCE, 16 * torch.finfo(result.dtype).eps)
    return torch.allclose(result, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
