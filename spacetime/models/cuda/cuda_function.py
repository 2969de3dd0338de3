"""A function of CuPy, numba.cuda or any other maker of kernels as a model of a session.

It launches what it likes on the stream it is given, which is its lane's: on the lane's SMs, in the
lane's order. Nothing of it is exported or captured: it runs as it is, requests one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_is_tracing: Any = getattr(torch.jit, "is_tracing")  # noqa: B009 - not in its stub


@dataclass(frozen=True, slots=True)
class LaneStream:
    """The stream of the calling lane, for whoever speaks the protocol `__cuda_stream__`: CuPy's
    `Stream.from_external(stream)`, cuda.core. `handle` is 0 where there is no CUDA device."""

    handle: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle  # version of the protocol, cudaStream_t

    def cupy(self) -> Any:
        """The same as a stream of CuPy, for `with stream.cupy():`. CuPy must be installed."""
        return import_module("cupy").cuda.ExternalStream(self.handle)

    def numba(self) -> Any:
        """The same as a stream of numba, for `kernel[blocks, threads, stream.numba()]`; 0 without
        a device, which is what numba's simulator takes. Numba must be installed."""
        if self.handle == 0:
            return 0
        return import_module("numba.cuda").external_stream(self.handle)


class CudaFunction(nn.Module):
    """CudaFunction(function): a model whose answer is `function(stream, *inputs)`.

    stream: a LaneStream. inputs: on a CUDA device its tensors, which CuPy and numba take through
    the CUDA array interface; on a CPU NumPy arrays. The function returns arrays of either, tensors,
    or whatever has that interface, also in tuples, lists and dicts; each holds one entry a sample.
    What it returns is copied on the same stream, so it may use its memory again at its next call.

    Lanes call it from threads of their own, at the same time.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"function: must be callable, got {type(function).__name__}")
        self.function = function
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaFunction:
        return self  # it has no weights, and compiled kernels need not be copyable

    def forward(self, *inputs: Tensor) -> Any:
        if any(type(x) is not Tensor for x in inputs) or _is_tracing():
            raise TypeError("a CudaFunction is not exported or traced: its kernels run as they are")
        device = inputs[0].device if inputs else torch.device("cpu")
        on_cuda = device.type == "cuda"
        stream = LaneStream(torch.cuda.current_stream(device).cuda_stream if on_cuda else 0)
        given = inputs if on_cuda else [x.detach().numpy() for x in inputs]
        return pytree.tree_map(partial(_tensor, device), self.function(stream, *given))


def _tensor(device: torch.device, answer: Any) -> Any:
    """An array of another library as a tensor over the same memory; others as they are."""
    if isinstance(answer, np.ndarray):
        return torch.from_numpy(answer)
    if isinstance(answer, Tensor) or not hasattr(answer, "__cuda_array_interface__"):
        return answer
    return torch.as_tensor(answer, device=device)
