"""Trials find what uniform probes do not, and take values that a model's tables have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from spacetime.fusion import Ranges, export, ranges, rows_of, with_extremes
from spacetime.models.trial import keeps_what_is_no_number, ordinary, same_rows, tried


class Reader(nn.Module):
    """Words, their kinds, and which of them count."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(37, 4), nn.Embedding(3, 4)

    def forward(self, words: Tensor, kinds: Tensor, mask: Tensor) -> Tensor:
        hidden = self.words(words) + self.kinds(kinds.view(-1, 6))
        return (hidden * mask[..., None]).sum(1)


READER = (torch.ones(1, 6).long(), torch.zeros(1, 6).long(), torch.ones(1, 6).long())


def test_numbers_stay_below_the_table_that_they_index() -> None:
    exported = export(Reader().eval(), READER)
    within = ranges(READER, exported)
    assert within.of == ((0, 37), (0, 3), (1, 2))
    words, kinds, mask = rows_of(READER, within, 9, seed=1)
    assert (int(words.min()), int(words.max())) == (0, 36)
    assert (int(kinds.min()), int(kinds.max())) == (0, 2)
    assert {*mask.flatten().tolist()} == {0, 1}
    assert len({*mask.sum(1).tolist()}) > 1  # masks of different lengths
    assert all(torch.equal(row, row.sort(descending=True)[0]) for row in mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.bool])
def test_rows_differ_even_where_the_examples_are_all_alike(dtype: torch.dtype) -> None:
    example = [torch.zeros(2, 16).to(dtype)]
    (rows,) = rows_of(example, ranges(example, None), 6, seed=0)
    assert rows.dtype is dtype
    assert rows.shape == (6, 16)
    assert len({tuple(row.tolist()) for row in rows}) > 3


def test_pictures_of_bytes_take_the_whole_range() -> None:
    example = [torch.zeros(1, 3, 8, 8, dtype=torch.uint8)]
    (rows,) = rows_of(example, ranges(example, None), 4, seed=0)
    assert (int(rows.min()), int(rows.max())) == (0, 255)


def test_one_row_among_extremes_stays_as_it_is() -> None:
    x = torch.randn(5, 3)
    for (batch,) in with_extremes([x], 2):
        assert torch.equal(batch[2], x[2])
        assert not ordinary([batch])
    assert ordinary([x])


def twice(x: Tensor) -> list[Tensor]:
    return [x * 2]


def test_a_fault_at_one_batch_size_is_found() -> None:
    example = [torch.zeros(1, 4)]
    trial = tried(twice, example, ranges(example, None), 8)

    def wrong_at_six(x: Tensor) -> list[Tensor]:
        return [x * 2 if len(x) != 6 else (x * 2).flip(0)]

    assert not trial.fault(twice, (1, 2, 4, 6, 8))
    assert "batch of 6" in trial.fault(wrong_at_six, (1, 2, 4, 6, 8))


def test_a_neighbours_infinity_is_found() -> None:
    example = [torch.zeros(1, 4)]
    trial = tried(twice, example, ranges(example, None), 8)

    def spilling(x: Tensor) -> list[Tensor]:
        return [x * 2 + 0 * x.sum()]

    assert "extreme" in trial.fault(spilling, (1, 8))


def test_a_layer_that_swallows_nan_is_found() -> None:
    example = [torch.zeros(1, 4)]
    trial = tried(lambda x: [x.relu()], example, ranges(example, None), 8)

    def swallowing(x: Tensor) -> list[Tensor]:
        return [x.relu().nan_to_num(0.0, float("inf"))]

    inputs, _ = trial.rows(range(4))
    assert keeps_what_is_no_number(lambda x: [x.relu()], lambda x: [x.relu()], inputs)
    assert not keeps_what_is_no_number(lambda x: [x.relu()], swallowing, inputs)


def test_a_model_that_refuses_made_up_numbers_is_tried_with_its_own() -> None:
    def picky(x: Tensor) -> Sequence[Tensor]:
        if int(x.max()) > 7:
            raise IndexError("beyond")
        return [x + 1]

    trial = tried(picky, [torch.full((1, 3), 7)], Ranges(((0, 1000),)), 4)
    assert int(trial.inputs[0].max()) <= 7


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        ([[1.0, 1000.0]], [[1.0, 1000.5]], True),
        ([[1.0, 2.0], [1e6, 1e6]], [[1.2, 2.0], [1e6, 1e6]], False),  # a small row beside a large
        ([[float("nan")]], [[float("nan")]], True),
        ([[float("nan")]], [[1.0]], False),
        ([[float("inf")]], [[float("inf")]], True),
        ([[float("inf")]], [[float("-inf")]], False),
    ],
)
def test_rows_are_compared_by_their_own_size(
    got: list[list[float]], expected: list[list[float]], same: bool
) -> None:
    assert same_rows([torch.tensor(got)], [torch.tensor(expected)]) is same


def test_sameness_is_strict_about_number_shape_and_dtype() -> None:
    x = [torch.ones(2)]
    assert same_rows(x, [torch.ones(2)])
    assert not same_rows(x, [torch.ones(3)])
    assert not same_rows(x, [torch.ones(2, dtype=torch.float64)])
    assert not same_rows(x, [])
    assert not same_rows(None, x)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_numbers_of_any_size(dtype: torch.dtype) -> None:
    largest = 2 ** (8 * dtype.itemsize) - 1
    example = [torch.tensor([[largest, 1, 0]], dtype=dtype)]
    (rows,) = rows_of(example, ranges(example, None), 5, seed=0)
    assert rows.dtype is dtype
    assert len({tuple(row.tolist()) for row in rows}) == 5
