"""Kernels of your own as tenants: numba.cuda and CuPy functions on their lanes' streams.

python examples/own_kernels.py cuda:0                        on a device
NUMBA_ENABLE_CUDASIM=1 python examples/own_kernels.py cpu    in numba's simulator
"""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from typing import Any

import torch
from numba import cuda

import spacetime as st

THREADS = 128


@cuda.jit  # type: ignore[untyped-decorator]
def softplus(x: Any, y: Any) -> None:
    """One thread an element: y = log(1 + exp(x))."""
    i, j = cuda.grid(1) // x.shape[1], cuda.grid(1) % x.shape[1]
    if i < x.shape[0]:
        y[i, j] = math.log1p(math.exp(x[i, j]))


def by_numba(stream: Any, x: Any) -> Any:
    """[N, K] to [N, K]. PyTorch's memory: numba's own allocations wait for the whole device."""
    y = torch.empty_like(x) if isinstance(x, torch.Tensor) else x.copy()
    softplus[-(-x.shape[0] * x.shape[1] // THREADS), THREADS, stream.numba()](x, y)
    return y


def by_cupy(stream: Any, x: Any) -> Any:
    """[N, K] to [N, K], sorted."""
    import cupy  # noqa: PLC0415 - optional

    with stream.cupy():
        return cupy.sort(cupy.asarray(x), axis=1)


def main(device: str) -> None:
    x = torch.randn(4, 6)
    with st.Session(device, lanes=1) as session:
        tenant = session.add(st.CudaFunction(by_numba), example_inputs=(x,))
        torch.testing.assert_close(tenant.submit(x).result(), torch.nn.functional.softplus(x))
        print("numba: as PyTorch's softplus")
        if device.startswith("cuda") and find_spec("cupy"):
            sort = session.add(st.CudaFunction(by_cupy), example_inputs=(x,))
            torch.testing.assert_close(sort.submit(x).result(), x.sort(1).values)
            print("CuPy: as PyTorch's sort")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["cuda:0"])
