"""Which Triton kernels a graph over slots may launch, found with operands that hold no data."""

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
    """A tensor of the same shape, type and layout on the meta device."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=META)


def kernels_of(
    module: fx.GraphModule, operands: Sequence[Tensor], *, sms: int, capability: int
) -> set[str]:
    """The kernels that the tuner will time for a graph, each as the text that `wanted` makes.

    `module`: what `placed(graph, META)` returns.
    `operands`: as the graph takes them, on the meta device.
    `sms`: of the partition.
    `capability`: of the device, 90 for 9.0.

    A kernel is compiled anew for other strides of its input, which depend on what ran before it: a
    library (NCHW), a convolution over groups (channels last of all slots together), or one of our
    kernels. So the graph is walked three times, each time with one of these assumed throughout. An
    operation that cannot run without data ends a walk; the kernels after it are compiled when they
    are timed. The set is empty where Triton is missing.
    """
    if not triton.available:
        return set()
    kernels: set[str] = set()
    for before in (lambda answer: None, lambda answer: answer, _grouped):
        with suppress(Exception), torch.no_grad():  # whatever operators raise without data
            Visit(module, _Listing(sms, capability, kernels, before)).run(*operands)
    return kernels


def _grouped(answer: Tensor) -> Tensor | None:
    """A convolution's output with the strides that a convolution over groups leaves: channels
    last of [1, slots * channels, height, width].
    """
    if answer.dim() != 4:
        return None
    slots, channels, high, wide = answer.shape
    strides = (channels, 1, wide * slots * channels, slots * channels)
    return torch.empty_strided(
        (slots, channels, high, wide), strides, dtype=answer.dtype, device=META
    )


class _Listing:
    """Lists the kernels of each slot operation that it is shown.

    `before` turns our kernel's answer into what the next operation is given. Where it returns None,
    the next operation is given what the library returns.
    """

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
