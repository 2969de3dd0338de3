"""cuBLAS by pointer array as an implementation of slot operations, where PyTorch has loaded it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from spacetime.fusion.choice.epilogues import Followed
from spacetime.fusion.choice.operation import Implementation, SlotOperation
from spacetime.kernels import cublas
from spacetime.kernels.by_pointer import convolve_by_pointer, linear_by_pointer

NAME = "cuBLAS by pointer"


def by_pointer(
    operation: SlotOperation, geometry: dict[str, Any] | None
) -> dict[str, Implementation]:
    """The implementation by its name; empty where the operation is no product or cuBLAS is missing.

    `geometry` holds a convolution's numbers. It is empty for a linear layer and None for anything
    else.
    """
    if geometry is None or geometry.get("groups", 1) != 1 or cublas.why_missing():
        return {}
    if geometry:
        flat = {name: geometry[name] for name in ("stride", "padding", "dilation")}
        tf32 = torch.backends.cudnn.allow_tf32
        kernel: Implementation = partial(convolve_by_pointer, **flat, tf32=tf32)
    else:
        tf32 = torch.backends.cuda.matmul.allow_tf32
        kernel = partial(linear_by_pointer, tf32=tf32)
    first = next(iter(operation.implementations.values()))
    return {NAME: Followed(kernel, first.activation) if isinstance(first, Followed) else kernel}


def in_words() -> str:
    """Whether weights by pointer array exist here, or why not: a line for explain()."""
    why_not = cublas.why_missing()
    return f"weights by pointer array: {why_not or 'cuBLAS, where it is measured to be fastest'}"
