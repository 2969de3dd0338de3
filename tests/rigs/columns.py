"""A stand-in for cublasGemmBatchedEx on the host's memory: by columns, as cuBLAS documents it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spacetime.kernels.cublas import ARGUMENTS, Library

INVALID_VALUE, NOT_SUPPORTED = 7, 15
TYPES = {0: torch.float32, 2: torch.float16, 14: torch.bfloat16}
HANDLE = 0x5EED


@dataclass
class Columns:
    """What was asked of it, and the library that asks it through ctypes."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    math: int | None = None

    def library(self) -> Library:
        self._gemm = ctypes.CFUNCTYPE(ctypes.c_int, *ARGUMENTS)(self._batched)
        self._math = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(self._set)
        return Library(self._gemm, self._math, lambda: HANDLE, "cpu")

    def _set(self, handle: int, mode: int) -> int:
        assert handle == HANDLE
        self.math = mode
        return 0

    def _batched(  # noqa: PLR0917 - cuBLAS's own order
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
        alpha: Any, a: int, a_type: int, lda: int, b: int, b_type: int, ldb: int,
        beta: Any, c: int, c_type: int, ldc: int, count: int, compute: int, algorithm: int,
    ) -> int:  # fmt: skip
        assert handle == HANDLE
        assert algorithm == -1
        read = {pointer(array, i) for array in (a, b) for i in range(count)}
        self.calls.append({"compute": compute, "count": count, "read": read})
        high_a, wide_a = (m, k) if transa == 0 else (k, m)
        high_b, wide_b = (k, n) if transb == 0 else (n, k)
        if min(m, n, k, count) < 0 or lda < max(1, high_a) or ldb < max(1, high_b) or ldc < m:
            return INVALID_VALUE
        if not a_type == b_type == c_type or compute not in (68, 77):
            return NOT_SUPPORTED
        kind = TYPES[a_type]
        for i in range(count):
            left = matrix(pointer(a, i), high_a, wide_a, lda, kind).double()
            right = matrix(pointer(b, i), high_b, wide_b, ldb, kind).double()
            out = matrix(pointer(c, i), m, n, ldc, kind)
            product = (left if transa == 0 else left.T) @ (right if transb == 0 else right.T)
            before = out.double() * beta[0] if beta[0] else 0.0  # beta = 0 reads nothing
            out.copy_(alpha[0] * product + before)
        return 0


def pointer(array: int, at: int) -> int:
    return ctypes.c_int64.from_address(array + 8 * at).value


def matrix(address: int, high: int, wide: int, lead: int, kind: torch.dtype) -> Tensor:
    """matrix: high x wide at an address, column after column `lead` elements apart."""
    elements = lead * (wide - 1) + high
    memory = (ctypes.c_char * (elements * kind.itemsize)).from_address(address)
    return torch.frombuffer(memory, dtype=kind).as_strided((high, wide), (1, lead))
