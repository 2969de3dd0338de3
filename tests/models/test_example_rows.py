"""A tenant's own requests: rows that differ, of declared values, from files, or refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from spacetime.models.example_rows import DTYPES, requests
from spacetime.workload.workload import DATATYPES, InputSpec, Tenant, WorkloadError, limits
from spacetime.workload.workload_file import read_workload

WHOLE = [name for name in DATATYPES if "INT" in name]
FLOATS = [name for name in DATATYPES if "INT" not in name and name != "BOOL"]


def tenant(*inputs: InputSpec) -> Tenant:
    return Tenant(name="a", model="m:f", slo_ms=10, rate_rps=1, example_inputs=inputs)


def made(*inputs: InputSpec, sizes: Any = (None,) * 4, seed: int = 0, folder: Path = Path()) -> Any:
    return requests(tenant(*inputs), folder, sizes, seed=seed)


def rows(spec: InputSpec, **options: Any) -> Tensor:
    """Every row of every request for one input."""
    return torch.cat([one[0] for one in made(spec, **options)])


def distinct(found: Tensor) -> bool:
    return len({row.contiguous().view(torch.uint8).numpy().tobytes() for row in found}) == len(
        found
    )


@pytest.mark.parametrize("datatype", DATATYPES)
def test_rows_differ_and_are_the_same_every_time(datatype: str) -> None:
    found = rows(InputSpec((3, 8), datatype))
    assert (found.dtype, found.shape) == (DTYPES[datatype], (12, 8))
    assert distinct(found)
    assert found.view(torch.uint8).equal(rows(InputSpec((3, 8), datatype)).view(torch.uint8))
    other = rows(InputSpec((3, 8), datatype), seed=1)
    assert not found.view(torch.uint8).equal(other.view(torch.uint8))


@pytest.mark.parametrize("datatype", WHOLE)
def test_whole_numbers_without_a_range_are_in_any_table(datatype: str) -> None:
    found = rows(InputSpec((4, 6), datatype)).to(torch.int64)
    assert {*found.flatten().tolist()} == {0, 1}
    assert (found.sum(dim=1) > 0).all()  # a mask of none hides all
    assert {*rows(InputSpec((2,), datatype)).tolist()} == {1}  # a length of 0 has no row


def test_no_row_of_a_mask_is_all_true_or_all_false() -> None:
    for width in (2, 3, 9):
        found = rows(InputSpec((8, width), "BOOL")).to(torch.int64).sum(dim=1)
        assert ((found > 0) & (found < width)).all()


@pytest.mark.parametrize("datatype", WHOLE)
def test_a_range_holds_both_its_ends(datatype: str) -> None:
    low, high = limits(datatype)
    for ends in ((5, 9), (low, high), (int(high) - 1, high), (low, low)):
        values = rows(InputSpec((4, 50), datatype, range=ends)).flatten().tolist()
        assert ends[0] <= min(values)
        assert max(values) <= ends[1]
        if ends[1] - ends[0] < 5:
            assert {*values} == {*range(int(ends[0]), int(ends[1]) + 1)}
        elif ends == (low, high):
            assert max(values) - min(values) > (high - low) * 0.8


@pytest.mark.parametrize("datatype", FLOATS)
def test_floats_lie_in_their_range(datatype: str) -> None:
    _, high = limits(datatype)
    for ends in ((-0.5, 0.25), (0, high), (-high, high), (2.0, 2.0)):
        found = rows(InputSpec((4, 50), datatype, range=ends)).to(torch.float64)
        assert found.isfinite().all()
        assert ends[0] <= found.min()
        assert found.max() <= ends[1]


def test_rows_of_few_values_differ_as_far_as_there_are_any() -> None:
    found = rows(InputSpec((4, 1), "INT64", range=(0, 2))).flatten().tolist()
    assert {*found[:3]} == {0, 1, 2}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"range": (1,)}, "range: must be [low, high], got [1]"),
        ({"range": (2, 1)}, "range: must be [low, high], got [2, 1]"),
        ({"range": (0, 2**31)}, "range: must be a whole number from -2147483648 to 2147483647"),
        ({"range": (0, 1.5)}, "range: must be a whole number"),
        ({"range": (0, True)}, "range: must be a whole number"),
        ({"range": (0, "9")}, "range: must be a whole number"),
        ({"datatype": "UINT8", "range": (-1, 5)}, "range: must be a whole number from 0 to 255"),
        ({"datatype": "FP16", "range": (0, 65505)}, "range: must be a number from -65504 to 65504"),
        ({"datatype": "FP64", "range": (0, math.inf)}, "range: must be a number"),
        ({"datatype": "FP32", "range": (math.nan, 1)}, "range: must be a number"),
        ({"datatype": "BOOL", "range": (0, 1)}, "range: is for numbers; BOOL is true and false"),
        ({"range": (0, 1), "file": "x.npy"}, "range: is of no use with a file"),
        ({"file": ""}, "file: must be a text that is not empty"),
        ({"file": 3}, "file: must be a text that is not empty"),
    ],
)
def test_a_wrong_declaration_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkloadError) as wrong:
        InputSpec(**({"shape": (1, 2), "datatype": "INT32"} | fields))
    assert str(wrong.value).startswith(says)


def test_a_workload_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    text = """tenants:
  - name: a
    model: m
    slo_ms: 1
    rate_rps: 1
    example_inputs:
      - {shape: [1, 4], datatype: INT64, range: [0, 49], name: ids}
      - shape: [1, 4]
        datatype: INT64
        range: RANGE
      - {shape: [1, 4], datatype: FP32, file: rows.npy}
"""
    path.write_text(text.replace("RANGE", "[1, 2]"))
    first, second, third = read_workload(path).tenants[0].example_inputs
    assert (first.range, second.range, third.file) == ((0, 49), (1, 2), "rows.npy")
    for wrong, says in (
        ("[9, 2]", "must be [low, high], got [9, 2]"),
        ("7", "must be a list of 2, got 7"),
        ("[.nan, 1]", "must be a whole number"),
        ("{a: 1}", "must be a list"),
    ):
        path.write_text(text.replace("RANGE", wrong))
        with pytest.raises(WorkloadError) as refused:
            read_workload(path)
        assert str(refused.value).startswith(
            f"{path}:10: tenants[0].example_inputs[1].range: {says}"
        )


def saved(folder: Path, suffix: str, name: str, array: np.ndarray) -> str:
    """A file of that kind with these rows; its name."""
    path = folder / f"rows{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, **{name: array, "other": array[:1]})
    elif suffix == ".safetensors":
        safetensors.torch.save_file({name: torch.from_numpy(array)}, path)
    else:
        datatype = {v: k for k, v in DTYPES.items()}[torch.from_numpy(array).dtype]
        one = {"name": name, "shape": list(array.shape), "datatype": datatype}
        path.write_text(json.dumps({"inputs": [one | {"data": array.flatten().tolist()}]}))
    return path.name


SUFFIXES = (".npy", ".npz", ".safetensors", ".json")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float32, np.bool_, np.uint8])
def test_a_file_gives_its_rows_in_order(tmp_path: Path, suffix: str, dtype: Any) -> None:
    array = np.arange(15).reshape(5, 3).astype(dtype)
    if dtype is np.uint64:
        array[0, 0] = 2**64 - 1
    if dtype is np.float32:
        array[0] = [math.inf, -math.inf, 0.1]
    datatype = {v: k for k, v in DTYPES.items()}[torch.from_numpy(array).dtype]
    spec = InputSpec((2, 3), datatype, "x", file=saved(tmp_path, suffix, "x", array))
    found = rows(spec, folder=tmp_path, sizes=(None, None, 1, 3))
    np.testing.assert_array_equal(found.numpy(), array[[0, 1, 2, 3, 4, 0, 1, 2]])


def test_an_input_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", input_0=np.zeros((3, 2)), input_1=np.ones((3, 1), np.int32))
    inputs = (
        InputSpec((1, 2), "FP64", file="rows.npz"),
        InputSpec((1, 1), "INT32", file="rows.npz"),
    )
    assert [one.tolist() for one in made(*inputs, folder=tmp_path)[0]] == [[[0.0, 0.0]], [[1]]]


@pytest.mark.parametrize(
    ("name", "holds", "says"),
    [
        ("none.npy", None, "none.npy: No such file"),
        ("rows.csv", b"1,2", "must end in .npy, .npz, .safetensors or .json"),
        ("rows.npy", b"no array", "rows.npy: "),
        ("rows.npz", b"no archive", "rows.npz: "),
        ("rows.safetensors", b"no tensors", "is no safetensors file"),
        ("rows.json", b"[1, 2]", "must be a request of the protocol"),
        ("rows.json", b"{", "rows.json: "),
        ("rows.json", b'{"inputs": [{"name": "y"}]}', "has nothing called x; there are y"),
        ("rows.json", b'{"inputs": [{"name": "x", "datatype": "BYTES"}]}', "datatype of x must be"),
        (
            "rows.json",
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3],'
            b' "data": [1, 2, "3"]}]}',
            "data of x must be values of FP32",
        ),
        (
            "rows.json",
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2]}]}',
            "rows.json: ",
        ),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, name: str, holds: bytes | None, says: str
) -> None:
    if holds is not None:
        (tmp_path / name).write_bytes(holds)
    with pytest.raises(WorkloadError) as wrong:
        made(InputSpec((1, 3), "FP32", "x", file=name), folder=tmp_path)
    text = str(wrong.value)
    assert text.startswith("tenant a: example_inputs[0].file: ")
    assert says in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3)),
        np.zeros((2, 4), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros(3, np.float32),
        np.zeros((2, 3, 1), np.float32),
        np.float32(1),
        np.array([["a"]]),
        np.array([[None]]),
        np.zeros((2, 3), ">i2"),
        np.zeros((1, 3), np.complex64),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(WorkloadError, match=r"^tenant a: example_inputs\[0\]\.file: .*rows\.npy: "):
        made(InputSpec((1, 3), "FP32", "x", file="rows.npy"), folder=tmp_path)


def test_bytes_in_the_other_order_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([[1.5, 2, 3]], ">f4"))
    found = rows(InputSpec((1, 3), "FP32", file="rows.npy"), folder=tmp_path, sizes=(None,))
    assert found.tolist() == [[1.5, 2, 3]]


def test_inputs_of_one_tenant_have_as_many_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((3, 2)), y=np.zeros((4, 2)))
    inputs = [InputSpec((1, 2), "FP64", name, file="rows.npz") for name in "xy"]
    with pytest.raises(WorkloadError, match="must have as many rows, got 3 and 4"):
        made(*inputs, folder=tmp_path)
