"""Which implementation is fastest: chosen by timing them where they will run, and remembered.

What is fastest depends on the layer, the number of slots, the type, and the cores or SMs: libraries
are hard to beat on large products, super-kernels on many small ones. `tune` is for a CPU and
remembers for this process. `Tuner` is for a device and keeps its choices where its owner says.
"""

from __future__ import annotations

import time
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

ROUNDS = 5  # in each of which every implementation is timed once

# What was fastest in this process, by what a measurement depends on.
_chosen: dict[tuple[Any, ...], str] = {}


def tune(module: fx.GraphModule, operands: Sequence[Tensor], budget_ms: float) -> None:
    """Choose an implementation of every slot operation for as many slots as operands[0] has.

    Operations that are left when `budget_ms` milliseconds are used up keep their first
    implementation.
    """
    slots = int(operands[0].shape[0])
    until_ns = time.perf_counter_ns() + int(budget_ms * 1e6)

    def visit(_: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        if len(operation.implementations) < 2:
            return
        key = _key(operation, args)
        if key not in _chosen:
            if time.perf_counter_ns() > until_ns:
                return
            _chosen[key] = _fastest(operation, args)
        operation.chosen[slots] = _chosen[key]

    with torch.no_grad():
        Visit(module, visit).run(*operands)


def _key(operation: SlotOperation, args: Sequence[Any]) -> tuple[Any, ...]:
    """What a measurement depends on: the operation, its operands' shapes, the number of threads."""
    # Without the first size: a stack's is the number of tenants, which changes no kernel's time.
    shapes = [(a.shape[1:], a.dtype, a.device) if isinstance(a, Tensor) else a for a in args]
    names = tuple(operation.implementations)
    return operation.key, names, int(args[0].shape[0]), *shapes, torch.get_num_threads()


def _fastest(operation: SlotOperation, args: Sequence[Any]) -> str:
    """The implementation with the least best time over interleaved rounds."""
    # A thread's own time leaves out what other lanes and processes take from it. It also leaves out
    # the thread's helpers, so it serves only where there are none.
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


class Choices(Protocol):
    """What was chosen before, as text by the text of what it depends on."""

    def get(self, key: str) -> str | None: ...
    def put(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tuner:
    """Chooses implementations for one partition of a device.

    `seconds`: times a call on the partition; it raises where the call cannot run there.
    `choices`: what was chosen before.
    `sms`: of the partition.
    `capability`: of the device, 90 for 9.0.
    """

    seconds: Callable[[Callable[[], object]], float]
    choices: Choices
    sms: int
    capability: int  # 90 for 9.0

    def tune(self, module: fx.GraphModule, operands: Sequence[Tensor]) -> None:
        """Choose an implementation of every slot operation for as many slots as operands[0] has.

        Raises CannotFuse where an operation has no implementation that runs here.
        """
        with torch.no_grad():
            Visit(module, self._choose).run(*operands)

    def _choose(self, name: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        """Choose for one operation: what was chosen before, or else the fastest, which is
        remembered.
        """
        key = self._key(operation, args)
        chosen = self.choices.get(key)
        kernel = self._named(operation, chosen) if chosen is not None else None
        if chosen is None or kernel is None:
            chosen, kernel = self._fastest(name, operation, args)
            self.choices.put(key, chosen)
        operation.implementations[chosen] = kernel
        operation.chosen[int(args[0].shape[0])] = chosen

    def _named(self, operation: SlotOperation, name: str) -> Implementation | None:
        """The implementation of this name, the operation's own or a super-kernel; None where it
        is gone.
        """
        own = operation.implementations.get(name)
        return own if own is not None else super_kernel(operation, name, sms=self.sms)

    def _fastest(
        self, name: str, operation: SlotOperation, args: Sequence[Any]
    ) -> tuple[str, Implementation]:
        """The fastest implementation and its name. Raises CannotFuse where none runs."""
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
        """What a choice depends on, as text."""
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
