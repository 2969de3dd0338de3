"""Products over slots by pointer arrays, in the cuBLAS that PyTorch itself has loaded.

Each slot's weight is a pointer to its row of the stack, computed on the device from `rows`. So no
weight is copied, and a captured graph serves whatever tenants the rows name. Everything is ordered
on PyTorch's current stream, through PyTorch's own handle and its workspace for that stream.

The calls go through ctypes, not CuPy. CuPy hands on cublasSgemmBatched but not cublasGemmBatchedEx,
so it has no bfloat16, and its cuBLAS need not be the one that PyTorch's handles belong to.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import gcd

import torch
from torch import Tensor

_AS_IS, _TRANSPOSED = 0, 1  # cublasOperation_t
_TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}  # cudaDataType_t
_COMPUTE, _COMPUTE_TF32 = 68, 77  # CUBLAS_COMPUTE_32F and its _FAST_TF32
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_DEFAULT_MATH = 0  # the compute type alone says whether float32 may be rounded to TF32
_ALIGNED = 16  # bytes: what fast kernels assume of every matrix


@dataclass(frozen=True, slots=True)
class Library:
    """The calls that are needed, with cuBLAS's own arguments. They return a status, 0 for done."""

    gemm_batched: Callable[..., int]  # cublasGemmBatchedEx
    set_math: Callable[[int, int], int]  # cublasSetMathMode
    handle: Callable[[], int]  # of the calling thread, on PyTorch's current stream
    device: str = "cuda"  # whose memory it reads


def why_missing() -> str:
    """Why there are no products by pointer array here; "" where there are."""
    try:
        library()
    except OSError as error:
        return str(error).splitlines()[0]
    return ""


@cache
def library() -> Library:
    """PyTorch's cuBLAS. Raises OSError, which says why, where PyTorch has loaded none."""
    if torch.version.cuda is None:
        raise OSError(f"this PyTorch ({torch.__version__}) is built without CUDA")
    # Only one that is loaded already: another copy's functions would not know PyTorch's handles.
    name = f"libcublas.so.{torch.version.cuda.partition('.')[0]}"
    loaded = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    gemm, math = loaded.cublasGemmBatchedEx, loaded.cublasSetMathMode
    gemm.argtypes, math.argtypes = ARGUMENTS, (ctypes.c_void_p, ctypes.c_int)
    return Library(gemm, math, torch.cuda.current_blas_handle)


_int, _pointer = ctypes.c_int, ctypes.c_void_p
ARGUMENTS = (
    *(_pointer, _int, _int, _int, _int, _int),  # handle, transa, transb, m, n, k
    ctypes.POINTER(ctypes.c_float),  # alpha
    *(_pointer, _int, _int),  # Aarray, Atype, lda
    *(_pointer, _int, _int),  # Barray, Btype, ldb
    ctypes.POINTER(ctypes.c_float),  # beta
    *(_pointer, _int, _int),  # Carray, Ctype, ldc
    *(_int, _int, _int),  # batchCount, computeType, algo
)  # of cublasGemmBatchedEx


def multiply(
    rows: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    tf32: bool = False,
    by: Library | None = None,
) -> None:
    """Compute y[i] = x[i] @ weight[rows[i]].T + bias[rows[i]] for every slot i.

    `rows`: int64 [S].
    `x`: [S, P, K].
    `weight`, `bias`: stacks [T, N, K] and [T, N], or None.
    `y`: [S, P, N], which is written.
    `tf32`: whether float32 may be rounded to TF32.
    `by`: the library to call; None means PyTorch's own.

    In each matrix one of the two dimensions has stride 1. Raises ValueError for what cuBLAS does
    not take, RuntimeError with the status where cuBLAS refuses.
    """
    if y.numel() == 0:
        return
    by = by or library()
    if x.device.type != by.device:
        raise ValueError(f"x: lies on {x.device}, must lie on a {by.device} device")
    if x.dtype not in _TYPES or {x.dtype, weight.dtype, y.dtype} != {x.dtype}:
        raise ValueError(f"x: {x.dtype} and weight: {weight.dtype} must be one of {[*_TYPES]}")
    fast = tf32 or x.dtype != torch.float32
    if fast and gcd(*map(_alignment, (x, weight, y))) % _ALIGNED:
        raise ValueError(f"x: its matrices and the weights' must lie on {_ALIGNED} bytes")
    if bias is not None:
        y.copy_(bias.index_select(0, rows).unsqueeze(1).expand_as(y))
    handle = by.handle()
    _done("cublasSetMathMode", by.set_math(handle, _DEFAULT_MATH))
    m, n, a, b, c = _columns(_Operand(x, _each(x)), _Operand(weight, _of(weight, rows)), y)
    kind, one = _TYPES[x.dtype], ctypes.c_float(1)
    status = by.gemm_batched(
        *(handle, a[0], b[0], m, n, x.shape[2], ctypes.byref(one)),
        *(a[1].data_ptr(), kind, a[2], b[1].data_ptr(), kind, b[2]),
        ctypes.byref(ctypes.c_float(0 if bias is None else 1)),
        *(c[0].data_ptr(), kind, c[1], len(y)),
        *(_COMPUTE_TF32 if tf32 and x.dtype == torch.float32 else _COMPUTE, _DEFAULT_ALGORITHM),
    )
    _done("cublasGemmBatchedEx", status)


@dataclass(frozen=True, slots=True)
class _Operand:
    """Matrices that all have one shape and strides, and the address of each."""

    matrices: Tensor  # [*, rows, columns]
    pointers: Tensor  # int64, one for each product


_Side = tuple[int, Tensor, int]  # cublasOperation_t, pointers, leading dimension


def _columns(
    x: _Operand, weight: _Operand, y: Tensor
) -> tuple[int, int, _Side, _Side, tuple[Tensor, int]]:
    """m, n, A, B and C of C = A B, all by columns as cuBLAS counts.

    Where y lies by rows, C is its transpose: the weight times x transposed. Else C is x times the
    weight transposed.
    """
    by_rows, lead = _lead(y)
    points, outputs = y.shape[1:]
    out = (_each(y), lead)
    if by_rows:
        return outputs, points, _side(weight, flat=False), _side(x, flat=True), out
    return points, outputs, _side(x, flat=False), _side(weight, flat=True), out


def _side(operand: _Operand, *, flat: bool) -> _Side:
    """An operand as cuBLAS takes it: whether it is transposed, its addresses, its leading
    dimension.

    `flat` says that the operand's transpose is wanted. Rows are that already for a reader of
    columns.
    """
    by_rows, lead = _lead(operand.matrices)
    return _AS_IS if by_rows == flat else _TRANSPOSED, operand.pointers, lead


def _lead(matrices: Tensor) -> tuple[bool, int]:
    """Whether each matrix lies by rows, and how many elements there are from one row, or column, to
    the next.

    Raises ValueError where neither its rows nor its columns have stride 1.
    """
    (high, wide), (down, across) = matrices.shape[1:], matrices.stride()[1:]
    if (across == 1 or wide == 1) and (down >= wide or high == 1):
        return True, max(down, wide)
    if (down == 1 or high == 1) and (across >= high or wide == 1):
        return False, max(across, high)
    raise ValueError(f"x: strides {matrices.stride()} lie neither by rows nor by columns")


def _alignment(matrices: Tensor) -> int:
    """A number of bytes that divides the address of every matrix."""
    step = matrices.stride(0) * matrices.element_size() if len(matrices) > 1 else 0
    return gcd(matrices.data_ptr(), step)


def _each(matrices: Tensor) -> Tensor:
    """The address of every matrix, in order."""
    first, step = matrices.data_ptr(), matrices.stride(0) * matrices.element_size()
    many, where = len(matrices), matrices.device
    if step == 0 or many == 1:
        return torch.full((many,), first, dtype=torch.int64, device=where)
    return torch.arange(first, first + many * step, step, dtype=torch.int64, device=where)


def _of(stack: Tensor, rows: Tensor) -> Tensor:
    """The address of the matrix at each row: first + row x step, in one launch."""
    return torch.rsub(rows, stack.data_ptr(), alpha=-stack.stride(0) * stack.element_size())


def _done(call: str, status: int) -> None:
    """Raise RuntimeError unless the status says that the call is done."""
    if status:
        raise RuntimeError(f"{call} returned status {status}")
