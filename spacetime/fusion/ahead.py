"""Which Triton kernels a graph over slots may launch, worked out on operands without data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx

from spacetime.fusion.choice.operation import SlotOperation
from spacetime.fusion.choice.qualify import Visit
from spacetime.fusion.choice.super_kernels import super_kernels
from spacetime.kernels import triton

META = torch.device("meta")


def without_data(x: Tensor) -> Tensor:
    """without_data(x): a tensor of that shape, type and layout on the meta device."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=META)


def kernels_of(
    module: fx.GraphModule, operands: Sequence[Tensor], *, sms: int, capability: int
) -> set[str]:
    """kernels_of(placed(graph, META), operands, ...): what the tuner will time there, as `wanted`.

    `operands` as the graph takes them, on the meta device. A kernel is compiled for the strides of
    its input, which depend on what ran before: a library on NCHW, one over groups with channels
    last, or ours; each of them is assumed once for the whole graph. None where Triton is missing.
    An operation that cannot go without data ends a walk: what follows is compiled when timed.
    """
    if not triton.available:
        return set()
    kernels: set[str] = set()
    for before in (lambda answer: None, lambda answer: answer, _grouped):
        with suppress(Exception), torch.no_grad():  # whatever operators raise without data
            Visit(module, _Listing(sms, capability, kernels, before)).run(*operands)
    return kernels


def _grouped(answer: Tensor) -> Tensor | None:
    """A convolution's output as channels last of [1, slots * channels, height, width] has it."""
    if answer.dim() != 4:
        return None
    slots, channels, high, wide = answer.shape
    strides = (channels, 1, wide * slots * channels, slots * channels)
    return torch.empty_strided(
        (slots, channels, high, wide), strides, dtype=answer.dtype, device=META
    )


class _Listing:
    """Lists an operation's kernels. `before` makes of our kernel's answer what the next operation
    is given; None: what the library returns."""

    def __init__(
        self,
        sms: int,
        capability: int,
        kernels: set[str],
        before: Callable[[Tensor], Tensor | None],
    ) -> None:
        self._sms, self._capability = sms, capability
        self._kernels, self._before = kernels, before

    def __call__(self, name: str, operation: SlotOperation, args: Sequence[Any]) -> None:
        slots, answer = int(args[0].shape[0]), None
        ours = super_kernels(operation, args, sms=self._sms, capability=self._capability)
        launch = import_module("spacetime.kernels.triton.launch")
        wanted = import_module("spacetime.kernels.triton.ahead").wanted
        for kernel in ours.values():
            with launch.noting() as launches, suppress(ValueError):
                answer = kernel(*args)  # or it refuses these operands, as it does when timed
            self._kernels.update(wanted(noted) for noted in launches)
        given = None if answer is None else self._before(answer)
        operation.chosen.pop(slots, None)
        if given is not None:
            operation.implementations["listed"] = lambda *_: given
            operation.chosen[slots] = "listed"
