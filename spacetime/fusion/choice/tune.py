"""Chooses implementations on a device by timing them where they will run, and remembers.

What is fastest depends on the layer, the number of slots, the type and the SMs of the partition:
libraries are hard to beat on large products, super-kernels on many small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from spacetime.errors import CannotFuse
from spacetime.fusion.choice.operation import Implementation, SlotOperation
from spacetime.fusion.choice.qualify import Visit
from spacetime.fusion.choice.super_kernels import super_kernel, ways


class Choices(Protocol):
    """What was chosen before: text by text."""

    def get(self, key: str) -> str | None: ...
    def put(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tuner:
    """`seconds(call)` times a call on a partition of `sms` SMs; raises where it cannot run."""

    seconds: Callable[[Callable[[], object]], float]
    choices: Choices
    sms: int
    capability: int  # 90 for 9.0

    def tune(self, module: fx.GraphModule, operands: Sequence[Tensor]) -> None:
        """tune(module, operands): choose for the number of slots in operands[0].

        Raises CannotFuse where an operation has no implementation that runs here.
        """
        with torch.no_grad():
            Visit(module, self._choose).run(*operands)

    def _choose(self, name: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        key = self._key(operation, args)
        chosen = self.choices.get(key)
        kernel = self._named(operation, chosen) if chosen is not None else None
        if chosen is None or kernel is None:
            chosen, kernel = self._fastest(name, operation, args)
            self.choices.put(key, chosen)
        operation.implementations[chosen] = kernel
        operation.chosen[int(args[0].shape[0])] = chosen

    def _named(self, operation: SlotOperation, name: str) -> Implementation | None:
        own = operation.implementations.get(name)
        return own if own is not None else super_kernel(operation, name, sms=self.sms)

    def _fastest(
        self, name: str, operation: SlotOperation, args: Sequence[Any]
    ) -> tuple[str, Implementation]:
        kernels = ways(operation, args, sms=self.sms, capability=self.capability)
        took: dict[str, float] = {}
        failed = ""
        for choice, kernel in kernels.items():
            try:
                took[choice] = self.seconds(partial(kernel, *args))
            except Exception as error:  # noqa: PERF203 - any failure means "not this one"
                failed = f"{choice}: {type(error).__name__}: {error}".splitlines()[0]
        if not took:
            raise CannotFuse(name, f"{operation.key}: nothing runs here; {failed}")
        best = min(took, key=lambda choice: took[choice])
        return best, kernels[best]

    def _key(self, operation: SlotOperation, args: Sequence[Any]) -> str:
        shapes = [
            f"{list(a.shape[1:])} at {list(a.stride()[1:])} {a.dtype}"
            for a in args[2:]
            if isinstance(a, Tensor)
        ]
        exact = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        slots = int(args[0].shape[0])
        tenants = len(set(args[0].tolist()))  # fewer than slots where memory was short
        where = f"sms {self.sms} tf32 {exact}"
        return f"{operation.key} x{slots} of {tenants} {' '.join(shapes)} {where}"
