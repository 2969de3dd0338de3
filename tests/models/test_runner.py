"""Any mixture of a family's requests gets each tenant's own answers, whichever way runs it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor
from torch.utils import _pytree as pytree

from spacetime.models.cpu.runner import Runner
from spacetime.models.flat import Outputs
from spacetime.models.request import Work

WEIGHTS = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
BUCKETS = (1, 2, 4, 8)
ONE = Outputs(pytree.tree_structure(0), (), single=True)
requests = some.lists(some.tuples(some.integers(0, 2), some.integers(1, 5)), min_size=1, max_size=9)


def alone(member: int, x: Tensor) -> Sequence[Tensor]:
    return [x @ WEIGHTS[member]]


def fused(index: Tensor, x: Tensor) -> Sequence[Tensor]:
    assert len(index) == len(x)
    return [torch.bmm(x[:, None], WEIGHTS[index])[:, 0]]


def runner(fused_ns: int | None) -> Runner:
    """Three linear models; a bucket costs its rows alone and `fused_ns` fused."""
    made = Runner(ONE, BUCKETS, {i: lambda x, i=i: alone(i, x) for i in range(3)})
    made.alone_ns = {b: 100 * b for b in BUCKETS}
    if fused_ns is not None:
        made.fused, made.fused_ns = fused, dict.fromkeys(BUCKETS, fused_ns)
    return made


def works(chosen: list[tuple[int, int]]) -> list[Work]:
    return [Work(member, [torch.randn(n, 4)], n) for member, n in chosen]


@pytest.mark.parametrize("fused_ns", [None, 0, 10**9], ids=["loop", "fused", "dear"])
@given(chosen=requests)
@settings(max_examples=60, deadline=None)
def test_any_mixture_equals_alone(fused_ns: int | None, chosen: list[tuple[int, int]]) -> None:
    batch = works(chosen)
    answers = runner(fused_ns).run(batch)
    for work, answer in zip(batch, answers, strict=True):
        torch.testing.assert_close(answer, alone(work.member, work.leaves[0])[0])


def test_the_cheaper_way_is_taken_for_the_mixture_at_hand() -> None:
    made = runner(fused_ns=250)
    assert made.prefers_fused([1, 1, 1])  # three launches of 100 each
    assert not made.prefers_fused([1, 1])
    assert made.prefers_fused([4])  # one launch of 400
    assert not made.prefers_fused([9])  # more than the largest bucket: only the loop has chunks


def test_predictions_follow_the_cheaper_way() -> None:
    assert runner(None).predicted_ns(4) == 100 + 100 + 200
    assert runner(250).predicted_ns(4) == 250
    assert runner(250).predicted_ns(1) == 100
    assert runner(None).loop_ns(19) == 2 * 800 + 400


def test_answers_outlive_the_next_launch_of_an_identity() -> None:
    made = Runner(ONE, BUCKETS, {0: lambda x: [x]}, alone_ns={b: b for b in BUCKETS})
    first = made.run([Work(0, [torch.full((1, 4), 1.0)], 1), Work(0, [torch.full((2, 4), 2.0)], 2)])
    made.run([Work(0, [torch.full((1, 4), 9.0)], 1), Work(0, [torch.full((2, 4), 9.0)], 2)])
    assert [float(x[0, 0]) for x in first] == [1.0, 2.0]


def test_a_runner_that_does_not_share_runs_requests_as_submitted() -> None:
    seen: list[int] = []

    def whole(x: Tensor) -> Sequence[Tensor]:
        seen.append(len(x))
        return [x]

    made = Runner(ONE, (1,), {0: whole}, shares=False, alone_ns={1: 1})
    made.run([Work(0, [torch.zeros(5, 4)], 5), Work(0, [torch.zeros(1, 4)], 1)])
    assert seen == [5, 1]


def test_only_prepared_batch_sizes_reach_the_model() -> None:
    seen: set[int] = set()

    def record(x: Tensor) -> Sequence[Tensor]:
        seen.add(len(x))
        return [x]

    made = Runner(ONE, BUCKETS, {0: record}, alone_ns={b: b for b in BUCKETS})
    for n in range(1, 9):
        made.run([Work(0, [torch.zeros(1, 4)], 1)] * n)
    assert seen == set(BUCKETS)
