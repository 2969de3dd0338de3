"""Whether captured graphs stay on the SMs of their partition, and what is done where they do not.

A kernel in a graph runs in the context that it was captured in, wherever the graph is launched. A
library that forks onto streams of its own captures in the primary context: that
graph would run on all SMs, beside every other lane. cuDNN has such streams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

import spacetime._native as _native

Captured = TypeVar("Captured")


class LeavesPartition(Exception):
    """Kernels of a captured graph would run outside its partition; the message counts them."""


def check(native: _native.CudaDevice, graph: int, home: int) -> None:
    """Raises LeavesPartition unless every kernel of the CUgraph `graph` is in the context `home`.

    A home of 0 is one that the driver does not tell: then nothing can be said.
    """
    contexts = _native.kernel_contexts(native, graph) if home else []
    foreign = sum(context != home for context in contexts)
    if foreign:
        raise LeavesPartition(f"{foreign} of its {len(contexts)} kernels would leave the partition")


def confined(capture: Callable[[], Captured], notes: list[str]) -> Captured:
    """What `capture` gives, with cuDNN or, if that leaves the partition, without; `notes` tell.

    Raises LeavesPartition where it leaves the partition either way.
    """
    try:
        return capture()
    except LeavesPartition as why:
        with without_cudnn():
            captured = capture()
        notes.append(f"a graph was captured without cuDNN: with it {why}")
        return captured


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """Inside, PyTorch computes convolutions without cuDNN, in every thread of the process."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
