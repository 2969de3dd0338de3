"""Tensors as the protocol carries them: bytes in row-major order, or JSON numbers.

Bytes are not copied on the way in: a tensor lies in the request's body where its address allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from spacetime.models.example_rows import DTYPES
from spacetime.server.refusal import Refusal, invalid

NonFinite = Literal["NaN", "Infinity", "-Infinity"]  # as protobuf writes them in JSON


def _nested(kind: Any) -> Any:
    """Returns the type of a list of `kind`, nested like a tensor's rows, at most 16 deep."""
    rows: Any = list[kind]
    return reduce(lambda inner, _: list[kind | inner], range(15), rows)  # type: ignore[valid-type]


if TYPE_CHECKING:
    Data = list[Any]
else:  # no other texts: a tensor of BYTES is not served
    Data = _nested(bool | int | float | NonFinite)
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
_PLAIN = {
    name: np.dtype(str(dtype).removeprefix("torch."))
    for name, dtype in DTYPES.items()
    if name != "BF16"
}
_CARRIED = _PLAIN | {"BF16": np.dtype(np.int16), "BOOL": np.dtype(np.uint8)}  # bytes, as numpy sees


def data_problem(problem: str) -> str:
    """Returns what a value of `data` must be; `problem` is what the parser says it is not."""
    if "out of range" in problem:
        return "is beyond any number that is served"
    return 'must be a number, "NaN", "Infinity", true or false, or rows of them; no BYTES'


def from_bytes(field: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """Returns the tensor of that datatype and shape whose row-major bytes are `data`, a buffer.

    The tensor shares the buffer's memory, unless that is read-only or not aligned. Raises Refusal
    naming `field` where the number of bytes is not the tensor's.
    """
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
    """Returns the tensor of JSON numbers, flat or nested as `shape` says.

    Raises Refusal naming `field` for values of another kind or number, or beyond the datatype.
    """
    kind = _kind(datatype)
    try:
        array = np.array(msgspec.convert(data, kind.nested), _wide(datatype))
    except (msgspec.ValidationError, OverflowError) as error:
        if kind is _FLOATS and "out of range" in str(error):
            raise _beyond(field, datatype) from None
        raise invalid(field, f"{datatype} takes {_range(datatype)}") from None
    except ValueError:  # ragged
        raise invalid(field, f"must be values, flat or nested as {list(shape)}") from None
    if array.size != math.prod(shape) or (array.ndim != 1 and array.shape != tuple(shape)):
        raise invalid(
            field, f"must be {math.prod(shape)} values of shape {list(shape)}, got {array.size}"
        )
    return _narrow(field, datatype, array).reshape(tuple(shape))


class _Kind(NamedTuple):
    """What JSON holds for datatypes of one kind: as a type, and in words."""

    nested: Any
    words: str


_BOOLS = _Kind(_nested(bool), "true or false")
_WHOLES = _Kind(_nested(int), "whole numbers")
_FLOATS = _Kind(_nested(float | NonFinite), 'numbers, "NaN", "Infinity" or "-Infinity"')


def _kind(datatype: str) -> _Kind:
    if datatype == "BOOL":
        return _BOOLS
    return _FLOATS if datatype.startswith(("FP", "BF")) else _WHOLES


def _wide(datatype: str) -> np.dtype[Any]:
    """Returns the dtype that JSON numbers are read into before they are narrowed to `datatype`.

    It takes each whole number exactly and each other one as FP64, or NumPy raises.
    """
    if datatype in {"BOOL", "UINT64"}:
        return _PLAIN[datatype]
    return np.dtype(np.float64 if _kind(datatype) is _FLOATS else np.int64)


def _range(datatype: str) -> str:
    words = _kind(datatype).words
    if _kind(datatype) is not _WHOLES:
        return words
    limits = np.iinfo(_PLAIN[datatype])
    return f"{words} from {limits.min} to {limits.max}"


def _narrow(field: str, datatype: str, array: np.ndarray[Any, Any]) -> Tensor:
    """The values in their own datatype. Raises Refusal where one does not fit."""
    kind = _kind(datatype)
    if kind is _WHOLES and datatype != "UINT64":
        limits = np.iinfo(_PLAIN[datatype])
        if int(array.min(initial=0)) < limits.min or int(array.max(initial=0)) > limits.max:
            raise invalid(field, f"{datatype} takes {_range(datatype)}")
    if datatype == "BF16":
        narrow = torch.from_numpy(array).to(torch.bfloat16)
    else:
        with np.errstate(over="ignore"):
            narrow = torch.from_numpy(array.astype(_PLAIN[datatype], copy=False))
    # A finite number that becomes an infinity is beyond the datatype.
    if kind is _FLOATS and np.isfinite(array).sum() != int(narrow.isfinite().sum()):
        raise _beyond(field, datatype)
    return narrow


def _beyond(field: str, datatype: str) -> Refusal:
    return invalid(field, f"holds a number that {datatype} cannot")


def to_bytes(tensor: Tensor) -> memoryview:
    """Returns a tensor's bytes in row-major order: its own memory, copied if not contiguous."""
    flat = tensor.detach() if tensor.requires_grad else tensor
    if not flat.is_contiguous():
        flat = flat.contiguous()
    if flat.dtype is torch.bfloat16:  # numpy has none
        flat = flat.view(torch.int16)
    return flat.numpy().reshape(-1).view(np.uint8).data


def to_numbers(tensor: Tensor) -> list[Any]:
    """Returns a tensor's values in row-major order; NaN and the infinities, which JSON lacks, are
    texts."""
    values: list[Any] = tensor.detach().reshape(-1).tolist()
    if not tensor.is_floating_point() or tensor.isfinite().all():
        return values
    return [value if math.isfinite(value) else _text(value) for value in values]


def _text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
