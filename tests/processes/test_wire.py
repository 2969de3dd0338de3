"""What crosses between two processes: batches, answers, errors and models, as they were."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import Latch, X, convnet, mlp
from proc_models import Tied
from torch import Tensor, nn

from spacetime import _native
from spacetime.errors import InvalidInput
from spacetime.models.request import Work
from spacetime.models.signature import Leaf
from spacetime.processes.area import Area
from spacetime.processes.packed import pack, unpack
from spacetime.processes.process import remote
from spacetime.processes.wire import (
    DTYPES,
    NONSENSE,
    read_answers,
    read_batch,
    write_answers,
    write_batch,
    write_error,
)

TAILS = st.lists(st.integers(0, 5), max_size=3).map(tuple)
LEAVES = st.lists(st.tuples(TAILS, st.sampled_from(DTYPES)), min_size=1, max_size=3)
ROWS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def filled(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 9).to(dtype)


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype is b.dtype and torch.equal(a, b)


@given(LEAVES, ROWS, st.integers(0, 1 << 62))
@settings(max_examples=60, deadline=None)
def test_a_batch_arrives_as_it_left(
    leaves: list[tuple[tuple[int, ...], torch.dtype]], rows: list[int], member: int
) -> None:
    known = [Leaf("x", torch.Size(tail), dtype) for tail, dtype in leaves]
    batch = [
        Work(member + i, [filled((n, *tail), dtype, i) for tail, dtype in leaves], n)
        for i, n in enumerate(rows)
    ]
    writer = Area.new(1)  # grows
    reader = Area(os.dup(writer.fd))
    asked: list[int] = []

    def known_as(tenant: int) -> tuple[int, list[Leaf]]:
        asked.append(tenant)
        return tenant - member, known

    for _ in range(2):  # the second time from what was worked out the first time
        write_batch(writer, batch)
        tenant, got = read_batch(reader, known_as)
        assert asked == [work.member for work in batch]
        assert tenant == member
        assert [(w.member, w.samples) for w in got] == [*enumerate(rows)]
        for one, other in zip(got, batch, strict=True):
            assert all(map(equal, one.leaves, other.leaves))
    writer.close()
    reader.close()


@given(st.lists(st.lists(st.tuples(TAILS, st.sampled_from(DTYPES)), max_size=3), max_size=5))
@settings(max_examples=60, deadline=None)
def test_answers_arrive_as_they_left_and_are_the_readers_own(
    shapes: list[list[tuple[tuple[int, ...], torch.dtype]]],
) -> None:
    answers = [[filled(s, d, i) for i, (s, d) in enumerate(each)] for each in shapes]
    area = Area.new(1)
    write_answers(area, answers)
    got = read_answers(area)
    write_answers(area, [[torch.full((64,), 7)]])  # the next launch's
    assert isinstance(got, list)
    assert len(got) == len(answers)
    for one, other in zip(got, answers, strict=True):
        assert len(one) == len(other)
        assert all(map(equal, one, other))
    area.close()


def test_a_view_that_is_not_contiguous_arrives_in_order() -> None:
    x = torch.arange(24.0).reshape(4, 6).t()
    area = Area.new()
    write_batch(area, [Work(0, [x], 6)])
    _, (got,) = read_batch(area, lambda _: (0, [Leaf("x", x.shape[1:], x.dtype)]))
    assert torch.equal(got.leaves[0], x)
    area.close()


@given(st.text(max_size=300))
def test_what_was_raised_arrives_by_name_and_text(text: str) -> None:
    area = Area.new()
    write_error(area, KeyError(text))
    got = read_answers(area)
    assert isinstance(got, tuple)
    assert isinstance(remote(*got), KeyError)
    area.close()


@given(
    words=st.lists(st.integers(-2, 12) | st.integers(-(2**63), 2**63 - 1), max_size=12),
    headed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_nonsense_is_refused_with_an_error_and_no_crash(words: list[int], *, headed: bool) -> None:
    area = Area.new()
    said = [len(words) + 2, 4096, *words] if headed else words
    area.reserve(4096)[: 8 * len(said)] = struct.pack(f"={len(said)}q", *said)
    with suppress(*NONSENSE):
        read_answers(area)
    area.close()


def test_answers_of_other_shapes_between_the_same_ones_arrive_as_they_left() -> None:
    writer = Area.new(1)
    reader = Area(os.dup(writer.fd))
    small, large = torch.randn(2, 3), torch.randn(300, 400)  # which makes the memory grow
    for answers in ([[small]], [[small + 1]], [[large], [small]], [[small], [large]], [[small]]):
        write_answers(writer, answers)
        got = read_answers(reader)
        assert isinstance(got, list)
        for (one,), (other,) in zip(got, answers, strict=True):
            assert equal(one, other)
    writer.close()
    reader.close()


def test_no_side_can_take_memory_from_the_other() -> None:
    area = Area.new()
    with pytest.raises(PermissionError):
        os.ftruncate(area.fd, 10)
    area.close()


@pytest.mark.parametrize("model", [mlp(3), convnet(4), Tied().eval()])
def test_a_model_arrives_whole_and_its_weights_are_mapped(model: nn.Module) -> None:
    x = torch.randn(2, 1, 8, 8) if isinstance(model[0] if isinstance(model, nn.Sequential) else 0,
                                             nn.Conv2d) else torch.randn(2, 6)  # fmt: skip
    area = pack("t", model, ((x,), {}))
    arrived, ((y,), _) = unpack(area.fd)
    assert torch.equal(x, y)
    assert torch.equal(model(x), arrived(x))
    assert [n for n, _ in arrived.named_parameters()] == [n for n, _ in model.named_parameters()]
    with torch.no_grad():
        next(arrived.parameters()).fill_(1)  # in this process only
    again, _ = unpack(area.fd)
    assert torch.equal(model(x), again(x))
    area.close()


def test_tied_parameters_stay_tied() -> None:
    area = pack("t", Tied(), ())
    arrived, _ = unpack(area.fd)
    assert isinstance(arrived, Tied)
    assert arrived.there.weight is arrived.back.weight
    area.close()


def test_a_model_that_cannot_leave_is_named_with_the_fix() -> None:
    with pytest.raises(InvalidInput, match=r"tenant t: model must be one that another process can"):
        pack("t", Latch(), ((X,), {}))


def test_a_mailbox_wakes_both_sides_and_forgets_nobody_who_waits_for_the_lost() -> None:
    area = Area.new(_native.Mailbox.BYTES)
    here, there = _native.Mailbox(area.fd), _native.Mailbox(area.fd)
    assert not there.next(timeout_ns=0)
    with ThreadPoolExecutor() as pool:
        for _ in range(200):
            asked = pool.submit(here.call)
            assert there.next(timeout_ns=10**10)
            there.answer()
            assert asked.result(10)
        asked = pool.submit(here.call)
        assert there.next(timeout_ns=10**10)
        here.lose()
        assert not asked.result(10)
    assert here.lost
    assert not here.call()
    area.close()


def test_a_heart_beats_while_python_is_held() -> None:
    area = Area.new(_native.Mailbox.BYTES)
    box = _native.Mailbox(area.fd)
    heart = _native.Heart(box, 1_000_000)
    before = box.beats
    sum(range(3_000_000))  # holds the GIL far longer than a beat
    assert box.beats > before
    del heart
    area.close()
