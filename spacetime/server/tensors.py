"""Tensors as the protocol carries them: bytes in row-major order, or JSON numbers.

Bytes are not copied on the way in: a tensor lies in the request's body where its address allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spacetime.live_model import DTYPES
from spacetime.server.refusal import invalid

DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
_PLAIN = {
    name: np.dtype(str(dtype).removeprefix("torch."))
    for name, dtype in DTYPES.items()
    if name != "BF16"
}
_FROM_JSON = _PLAIN | {"BF16": np.dtype(np.float32)}
_CARRIED = _PLAIN | {"BF16": np.dtype(np.int16), "BOOL": np.dtype(np.uint8)}  # bytes, as numpy sees


def from_bytes(field: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """The tensor that lies in `data`, a buffer; read-only ones and odd addresses are copied."""
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise invalid(
            field, f"{expected} bytes are the {datatype} tensor {list(shape)}, got {len(data)}"
        )
    array = np.frombuffer(data, _CARRIED[datatype])
    if not (array.flags.writeable and array.flags.aligned):
        array = array.copy()
    if datatype == "BOOL":  # what is not 0 is true
        array = array != 0
    # Shaped by numpy: PyTorch takes ten times as long to reshape.
    tensor = torch.from_numpy(array.reshape(shape))
    return tensor if tensor.dtype is dtype else tensor.view(dtype)


def from_numbers(field: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    """The tensor of JSON numbers, flat or nested as `shape` says."""
    try:
        array = np.array(data)
    except (ValueError, OverflowError):  # ragged, or nested beyond what numpy holds
        raise invalid(field, f"must be numbers, flat or nested as {list(shape)}") from None
    if array.size != math.prod(shape) or (array.ndim != 1 and array.shape != tuple(shape)):
        raise invalid(
            field, f"must be {math.prod(shape)} values of shape {list(shape)}, got {array.size}"
        )
    _check_kind(field, datatype, array)
    try:
        with np.errstate(over="raise"):
            array = array.astype(_FROM_JSON[datatype])
    except FloatingPointError:
        raise invalid(field, f"holds a number that {datatype} cannot") from None
    tensor = torch.from_numpy(array.reshape(shape))
    return tensor.to(torch.bfloat16) if datatype == "BF16" else tensor  # .to() is not free


def _check_kind(field: str, datatype: str, array: np.ndarray[Any, Any]) -> None:
    if datatype == "BOOL":
        fits, what = array.dtype.kind == "b", "true or false"
    elif datatype.startswith(("FP", "BF")):
        fits, what = array.dtype.kind in "iuf", "numbers"
    else:
        limits = np.iinfo(_PLAIN[datatype])
        what = f"whole numbers from {limits.min} to {limits.max}"
        fits = array.dtype.kind in "iu" and bool(
            int(array.min(initial=0)) >= limits.min and int(array.max(initial=0)) <= limits.max
        )
    if not fits:
        raise invalid(field, f"{datatype} takes {what}")


def to_bytes(tensor: Tensor) -> memoryview:
    """The tensor's own memory, row by row; copied only where it is not contiguous."""
    flat = tensor.detach() if tensor.requires_grad else tensor
    if not flat.is_contiguous():
        flat = flat.contiguous()
    if flat.dtype is torch.bfloat16:  # numpy has none
        flat = flat.view(torch.int16)
    return flat.numpy().reshape(-1).view(np.uint8).data


def to_numbers(tensor: Tensor) -> list[Any]:
    """JSON numbers in row-major order; those that JSON lacks (NaN, infinities) become null."""
    values: list[Any] = tensor.detach().reshape(-1).tolist()
    return values
