"""Requests are checked against the example inputs; the error names what does not fit."""

from __future__ import annotations

import pytest
import torch

from spacetime.errors import InvalidInput
from spacetime.models.signature import signature_of

IMAGE = torch.zeros(2, 3, 8, 8)
SINGLE = signature_of("t", (IMAGE,), {})
NESTED = signature_of("t", ({"ids": torch.zeros(1, 7, dtype=torch.long)},), {"mask": IMAGE[:1]})


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_any_batch_size_fits(rows: int) -> None:
    x = torch.zeros(rows, 3, 8, 8)
    leaves, samples = SINGLE.check((x,), {})
    assert leaves[0] is x
    assert samples == rows


def test_nested_structures_flatten_in_order() -> None:
    ids, mask = torch.zeros(4, 7, dtype=torch.long), torch.zeros(4, 3, 8, 8)
    leaves, samples = NESTED.check(({"ids": ids},), {"mask": mask})
    assert [leaf is x for leaf, x in zip(leaves, (ids, mask), strict=True)] == [True, True]
    assert samples == 4


@pytest.mark.parametrize(
    ("args", "field", "expected", "got"),
    [
        ((torch.zeros(2, 3, 8, 9),), "inputs[0] shape", "[batch, 3, 8, 8]", "[2, 3, 8, 9]"),
        ((torch.zeros(0, 3, 8, 8),), "inputs[0] shape", "at least one sample", "[0, 3, 8, 8]"),
        ((IMAGE.double(),), "inputs[0] dtype", "torch.float32", "torch.float64"),
        ((torch.tensor(1.0),), "inputs[0] shape", "[batch, 3, 8, 8]", "[]"),
        (([1, 2],), "inputs", "structured like (*)", "([*, *])"),
        (("text",), "inputs[0]", "a torch.Tensor", "str"),
        ((), "inputs", "(*)", "()"),
    ],
)
def test_what_does_not_fit_is_named(
    args: tuple[object, ...], field: str, expected: str, got: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        SINGLE.check(args, {})
    assert caught.value.field == field
    assert expected in caught.value.expected
    assert got in caught.value.got
    assert "\n" not in str(caught.value)


def test_leaves_must_agree_on_the_batch() -> None:
    with pytest.raises(InvalidInput, match=r"inputs\['mask'\].*a batch of 2.*got 3"):
        NESTED.check(
            ({"ids": torch.zeros(2, 7, dtype=torch.long)},), {"mask": torch.zeros(3, 3, 8, 8)}
        )


@pytest.mark.parametrize("example", [(), (1,), (torch.tensor(0.0),), (torch.zeros(0, 3),)])
def test_examples_need_tensors_with_a_batch(example: tuple[object, ...]) -> None:
    with pytest.raises(InvalidInput):
        signature_of("t", example, {})


def test_example_inputs_must_be_a_tuple() -> None:
    with pytest.raises(InvalidInput, match="example_inputs must be a tuple"):
        signature_of("t", IMAGE, {})  # type: ignore[arg-type]
