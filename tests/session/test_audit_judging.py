"""What counts as a difference, what must be no false alarm, and what cannot be audited."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch
from models import Picky, X, convnet, mlp
from test_audit import add, counts, session_on
from torch import Tensor, nn

import spacetime as st
from spacetime.models.difference import difference, doubt
from spacetime.reports.report import AuditCounts

INF, NAN = float("inf"), float("nan")


class Ranking(nn.Module):
    """Tokens to scores and the best of them: an integer that rounding may decide."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.norm = nn.Embedding(20, 16), nn.LayerNorm(16)
        self.scores = nn.Linear(16, 20)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        scores = self.scores(torch.nn.functional.gelu(self.norm(self.table(ids))))
        return {"scores": torch.softmax(scores, -1), "best": scores.argmax(-1)}


def adversarial(numbers: random.Random, *shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(numbers.randrange(2**31)))
    scale = numbers.choice([1, 1, 1e-42, 1e-30, 0, 1e10, 1e19, 1e30, 1e38])
    x *= scale
    if numbers.random() < 0.4:
        odd = numbers.choice([NAN, INF, -INF, 3.4e38, -1e-45])
        x.view(-1)[numbers.randrange(x.numel())] = odd
    return x


@pytest.mark.parametrize("place", ["cpu", "fake:h200"])
def test_no_false_alarm_over_thousands_of_mixed_adversarial_requests(place: str) -> None:
    numbers = random.Random(4)
    kinds: list[tuple[Any, tuple[int, ...] | None]] = [
        (mlp, (6,)), (convnet, (1, 8, 8)), (Ranking, None),
    ]  # fmt: skip
    with session_on(place) as session:
        tenants = []
        for make, shape in kinds:
            example = torch.zeros(1, *shape) if shape else torch.zeros(1, 5, dtype=torch.long)
            tenants += [(t, shape) for t in add(session, 3, make, example)]
        for _ in range(75):
            futures = []
            for _ in range(40):
                tenant, shape = numbers.choice(tenants)
                rows = numbers.choice([1, 1, 2, 7])
                x = torch.randint(0, 20, (rows, 5)) if shape is None else None
                x = adversarial(numbers, rows, *shape) if x is None and shape else x
                futures.append(tenant.submit(x))
            for future in futures:
                future.result(60)
            assert session.auditor is not None
            assert session.auditor.settle(60)
        found = [session.counters().tenants[t.name].audit for t, _ in tenants]
    assert [each.differences for each in found] == [0] * 9
    assert sum(each.checked + each.unsure for each in found) == 3000
    assert sum(each.checked for each in found) > 2900


class Greedy(nn.Module):
    """Changes its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1) * 2 if x.sum() > -1e9 else x


def test_a_model_that_changes_its_inputs_is_audited_on_what_was_sent() -> None:
    with st.Session("cpu", audit=1.0) as session:
        tenant = session.add(Greedy().eval(), example_inputs=(X,))
        for _ in range(5):
            tenant(torch.randn(1, 6))
        assert counts(session, tenant).checked == 5
        assert counts(session, tenant).differences == 0


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Remembers(nn.Module):
    """Answers by what came before, not only by its input."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        before, self.last = self.last, x.detach().sum()
        return x + before


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "why"),
    [(Noisy(), "on one input differ"), (Remembers(), "on one input differ"),
     (Locked(), "cannot be copied")],
)  # fmt: skip
def test_what_cannot_be_audited_is_said(model: nn.Module, why: str) -> None:
    with st.Session("cpu", audit=1.0) as session:
        tenant = session.add(model.eval(), example_inputs=(X + 1,), name="odd")
        for _ in range(5):
            tenant(X + 2)
        assert counts(session, tenant) == AuditCounts()
        assert "odd: not audited: " in session.explain()
        assert why in session.explain()


def test_an_answer_where_the_module_raises_is_a_difference() -> None:
    ids = torch.zeros(1, 5, dtype=torch.long)
    with st.Session("cpu", audit=1.0) as session:
        tenant = session.add(Picky(0).eval(), example_inputs=(ids,))
        assert tenant.watch is not None
        found = tenant.watch.reference.judge([ids + 99], torch.zeros(1, 5, 4))
        assert found.differs
        assert found.why.startswith("the module alone raises IndexError")


class Steep(nn.Module):
    """Looks tiny differences of its input up as large ones."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid((x.sum(1, keepdim=True) - 1) * 1e12)


def test_what_rounding_decides_is_no_difference_and_the_rest_is() -> None:
    with st.Session("cpu", audit=1.0) as session:
        tenant = session.add(Steep().eval(), example_inputs=(X,))
        assert tenant.watch is not None
        reference = tenant.watch.reference
        edge, far = torch.full((1, 6), 1 / 6), torch.full((1, 6), 2.0)
        here, there = reference.answer([edge]), reference.answer([far])
        assert reference.judge([edge], here.logical_not().float()).unsure
        assert reference.judge([far], torch.zeros_like(there)).differs
        huge = torch.full((1, 6), 3e38)
        assert reference.judge([huge], torch.tensor([[NAN]])).unsure


def test_doubt_leaves_the_module_and_the_inputs_as_they_are() -> None:
    model, x = convnet(0), torch.randn(2, 1, 8, 8)
    before, same = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    moved = doubt(model, lambda module, leaves: module(*leaves), [x], model(x).detach())
    assert 0 < moved < 1e-4
    assert torch.equal(x, same)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


ONE = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("got", "expected", "apart"),
    [
        (ONE, ONE.clone(), 0),
        (torch.tensor([NAN, INF, -INF]), torch.tensor([NAN, INF, -INF]), 0),
        (torch.tensor([NAN, 1.0]), ONE, INF),
        (torch.tensor([INF, 1.0]), torch.tensor([-INF, 1.0]), INF),
        (ONE, ONE.double(), INF),
        (ONE, ONE[None], INF),
        ((ONE, 3), (ONE, 4), INF),
        ((ONE, 3), (ONE, 3), 0),
        ((ONE, "a", None), (ONE, "a", None), 0),
        ({"a": ONE}, {"b": ONE}, INF),
        ([ONE], (ONE,), INF),
        (ONE + 0.4, ONE, 0.4 / 3),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), INF),
        (torch.tensor([True]), torch.tensor([False]), INF),
        ((ONE, 1.5), (ONE, 1.5 + 1e-12), 0),
        ((ONE, NAN), (ONE, NAN), 0),
        ((ONE, object()), (ONE, object()), INF),
        (torch.tensor([1e-44]), torch.tensor([0.0]), 0),
        (torch.tensor([1e-3]), torch.tensor([0.0]), INF),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 2j]), 0),
        (torch.tensor([]), torch.tensor([]), 0),
        (ONE.bfloat16(), ONE.bfloat16(), 0),
    ],
)
def test_how_far_two_answers_are_apart(got: Any, expected: Any, apart: float) -> None:
    assert difference(got, expected) == pytest.approx(apart, abs=1e-6)
