"""The requests that a workload's tenant is tried with: rows that differ, of what its inputs take.

Seeded, so they are the same every time. An input may name a `range` of its values or a `file` of
rows. Without either floats are normal, and whole numbers are 0 and 1: the only ones that every
table has. No such row is all 0, as a mask that hides all would be; nor, of BOOL, all true.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spacetime.errors import UnsupportedError
from spacetime.workload.workload import InputSpec, Tenant, WorkloadError

DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
NON_FINITE = ("NaN", "Infinity", "-Infinity")  # what JSON has texts for
TRIES = 20  # for a row that is new, where there are few
Rows = Callable[[int], Tensor]  # (count) -> the next rows: [count, ...]


def requests(
    tenant: Tenant, folder: Path, sizes: Sequence[int | None], *, seed: int
) -> tuple[tuple[Tensor, ...], ...]:
    """The positional inputs of one request for each size; None is the size that shapes say.

    `folder` is the workload file's. Raises WorkloadError naming the tenant and the field.
    """
    files = [_read(tenant, place, folder) for place in range(len(tenant.example_inputs))]
    counts = {len(rows): place for place, rows in enumerate(files) if rows is not None}
    if len(counts) > 1:
        raise WorkloadError(
            _field(tenant, max(counts.values())),
            f"the files of one tenant must have as many rows, got {' and '.join(map(str, counts))}",
        )
    inputs = [
        (
            spec,
            _drawn(spec, np.random.default_rng([seed, place])) if rows is None else _in_turn(rows),
        )
        for place, (spec, rows) in enumerate(zip(tenant.example_inputs, files, strict=True))
    ]
    return tuple(
        tuple(rows(spec.shape[0] if size is None else size) for spec, rows in inputs)
        for size in sizes
    )


def _in_turn(rows: Tensor) -> Rows:
    """A file's rows in order, from the first again after the last."""
    at = 0

    def following(count: int) -> Tensor:
        nonlocal at
        places = torch.arange(at, at + count) % len(rows)
        at = (at + count) % len(rows)
        return rows[places]

    return following


def _drawn(spec: InputSpec, draw: np.random.Generator) -> Rows:
    tail, dtype = spec.shape[1:], DTYPES[spec.datatype]
    if dtype.is_floating_point:
        return lambda count: torch.from_numpy(_floats(spec, draw, (count, *tail))).to(dtype)
    seen: set[bytes] = set()
    size = math.prod(tail)

    def rows(count: int) -> Tensor:
        samples = np.stack([_new(lambda: _whole(spec, draw, size), seen) for _ in range(count)])
        return torch.from_numpy(samples).reshape(count, *tail)

    return rows


def _floats(spec: InputSpec, draw: np.random.Generator, shape: Sequence[int]) -> Any:
    if spec.range is None:
        return draw.standard_normal(shape)
    low, high = spec.range
    part = draw.random(shape)
    return low * (1 - part) + high * part  # high - low may be beyond any float


def _new(draw: Callable[[], Any], seen: set[bytes]) -> Any:
    """A row that has not been drawn before, unless TRIES draws give none."""
    row = draw()
    for _ in range(TRIES):
        if row.tobytes() not in seen:
            break
        row = draw()
    seen.add(row.tobytes())
    return row


def _whole(spec: InputSpec, draw: np.random.Generator, size: int) -> Any:
    dtype = _numpy(spec.datatype)
    if spec.range is not None:
        low, high = map(int, spec.range)
        return draw.integers(low, high, size, dtype, endpoint=True)
    row = draw.integers(0, 1, size, np.uint8, endpoint=True)
    if not row.any():
        row[draw.integers(size)] = 1
    elif dtype == np.bool_ and size > 1 and row.all():
        row[draw.integers(size)] = 0
    return row.astype(dtype)


def _field(tenant: Tenant, place: int) -> str:
    return f"tenant {tenant.name}: example_inputs[{place}].file"


def _read(tenant: Tenant, place: int, folder: Path) -> Tensor | None:
    """An input's rows as its file has them; None where it names none."""
    spec = tenant.example_inputs[place]
    if spec.file is None:
        return None
    path = folder / spec.file
    try:
        rows = _tensor(path, spec.name or f"input_{place}")
    except OSError as error:
        problem = f"{path}: {error.strerror or 'cannot be read'}"
        raise WorkloadError(_field(tenant, place), problem) from error
    except (ValueError, TypeError, KeyError, OverflowError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise WorkloadError(_field(tenant, place), f"{path}: {reason:.300}") from error
    wanted = f"{spec.datatype} [rows, {str([*spec.shape[1:]])[1:]}".replace(", ]", "]")
    if rows.dtype is not DTYPES[spec.datatype] or rows.shape[1:] != spec.shape[1:] or not len(rows):
        got = f"{str(rows.dtype).removeprefix('torch.')} {list(rows.shape)}"
        raise WorkloadError(_field(tenant, place), f"{path}: must hold {wanted}, got {got}")
    return rows


def _tensor(path: Path, name: str) -> Tensor:
    """The rows that a file has under a name; an .npy file has one array only."""
    if path.suffix == ".npy":
        return _of_array(np.load(path, allow_pickle=False))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return _of_array(_named(arrays, name))
    if path.suffix == ".safetensors":
        return _safetensor(path, name)
    if path.suffix == ".json":
        return _of_message(json.loads(path.read_text(encoding="utf-8")), name)
    raise ValueError("must end in .npy, .npz, .safetensors or .json")


def _named(tensors: Mapping[str, Any], name: str) -> Any:
    if name not in tensors:
        raise ValueError(f"has nothing called {name}; there are {', '.join(tensors) or 'none'}")
    return tensors[name]


def _of_array(array: np.ndarray[Any, Any]) -> Tensor:
    if not array.ndim:
        raise ValueError("must have rows, got a single value")
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def _safetensor(path: Path, name: str) -> Tensor:
    try:
        safetensors = import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        text = f"{path}: needs safetensors: pip install 'spacetime[live]'"
        raise UnsupportedError(text) from error
    try:
        tensors: dict[str, Tensor] = safetensors.load_file(path)
    except OSError:
        raise
    except Exception as error:  # its own error class, for whatever is no such file
        raise ValueError(f"is no safetensors file: {error}") from error
    tensor: Tensor = _named(tensors, name)
    if not tensor.dim():
        raise ValueError("must have rows, got a single value")
    return tensor


def _of_message(message: Any, name: str) -> Tensor:
    """An input of a request as the protocol writes it in JSON."""
    inputs = message.get("inputs") if isinstance(message, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
        raise ValueError('must be a request of the protocol: {"inputs": [{"name": ...}, ...]}')
    given = _named({str(given.get("name")): given for given in inputs}, name)
    datatype = given.get("datatype")
    if datatype not in DTYPES:
        raise ValueError(f"datatype of {name} must be one of {', '.join(DTYPES)}")
    values = np.array(given.get("data"), object).reshape(-1).tolist()
    if not all(map(_checks(datatype), values)):
        raise ValueError(f"data of {name} must be values of {datatype}")
    wide = np.float64 if DTYPES[datatype].is_floating_point else _numpy(datatype)
    numbers = np.array([float(value) for value in values] if wide is np.float64 else values, wide)
    return torch.from_numpy(numbers.reshape(given.get("shape"))).to(DTYPES[datatype])


def _checks(datatype: str) -> Callable[[Any], bool]:
    """What a value of JSON must be for a datatype."""
    if datatype == "BOOL":
        return lambda value: type(value) is bool
    if DTYPES[datatype].is_floating_point:
        return lambda value: type(value) in {int, float} or value in NON_FINITE
    limits = np.iinfo(_numpy(datatype))
    return lambda value: type(value) is int and limits.min <= value <= limits.max


def _numpy(datatype: str) -> Any:
    return np.dtype(str(DTYPES[datatype]).removeprefix("torch."))
