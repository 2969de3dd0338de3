"""Indexes in and out of bounds through sessions: each caller gets its own module's answer or error.

However requests share launches: of several tenants or of one, on threads, in processes, in the
captured graphs of a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hypo
from models import LookUp
from torch import Tensor, nn

import spacetime as st

IDS = torch.tensor([[1, 2, 3]])
ROWS = 10
EXTREMES = [-(2**63), -(2**31), -ROWS - 1, -ROWS, -1, ROWS, ROWS + 1, 2**31, 2**63 - 1]
SESSIONS: dict[str, dict[str, Any]] = {
    "threads": {"device": "cpu", "lanes": 1},
    "processes": {"device": "cpu", "lanes": 1, "isolation": "process"},
    "a device's graphs": {"device": "fake:h200", "max_batch": 8},
}


@pytest.fixture(params=SESSIONS, scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[st.Session]:
    with st.Session(**SESSIONS[request.param]) as opened:
        yield opened


@pytest.fixture(params=LookUp.WAYS, scope="module")
def members(
    request: pytest.FixtureRequest, session: st.Session
) -> Iterator[list[tuple[nn.Module, st.Tenant]]]:
    models = [LookUp(seed, request.param).eval() for seed in range(3)]
    tenants = [session.add(model, example_inputs=(IDS,)) for model in models]
    yield [*zip(models, tenants, strict=True)]
    for tenant in tenants:
        session.remove(tenant)


def assert_own(model: nn.Module, x: Tensor, future: Future[Any]) -> None:
    """The answer of the module itself, or an error because it raises."""
    try:
        with torch.no_grad():
            expected = model(x)
    except Exception:
        with pytest.raises(st.ModelError, match=r"the model raised \w+Error: .*") as caught:
            future.result(60)
        assert "\n" not in str(caught.value)
        assert "Error: RuntimeError" not in str(caught.value)
    else:
        torch.testing.assert_close(future.result(60), expected, rtol=1e-4, atol=1e-5)


ANY = hypo.one_of(
    hypo.integers(0, ROWS - 1), hypo.integers(-ROWS, ROWS), hypo.sampled_from(EXTREMES)
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=hypo.lists(hypo.tuples(hypo.integers(0, 2), hypo.lists(ANY, min_size=3, max_size=3)),
                        min_size=1, max_size=20))  # fmt: skip
def test_every_caller_gets_its_own_modules_answer_or_error(
    members: list[tuple[nn.Module, st.Tenant]], drawn: list[tuple[int, list[int]]]
) -> None:
    sent = [(member, torch.tensor([ids])) for member, ids in drawn]
    futures = [members[member][1].submit(x) for member, x in sent]
    for (member, x), future in zip(sent, futures, strict=True):
        assert_own(members[member][0], x, future)


def test_one_tenants_callers_share_no_error(members: list[tuple[nn.Module, st.Tenant]]) -> None:
    model, tenant = members[0]
    requests = [IDS + (ROWS if i % 5 == 3 else i % 7) for i in range(40)]
    requests += [torch.cat([IDS, IDS + ROWS, IDS]), torch.cat([IDS, IDS])]
    futures = [tenant.submit(x) for x in requests]
    for x, future in zip(requests, futures, strict=True):
        assert_own(model, x, future)


def test_a_looked_up_row_that_nobody_uses_raises_all_the_same() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(ROWS, 4)

        def forward(self, ids: Tensor) -> Tensor:
            self.table(ids)
            return ids * 2

    class Asserts(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            torch._assert_async((ids < ROWS).all(), "an id is too large")
            return ids * 2

    with st.Session("cpu", lanes=1) as session:
        for model in (Unused().eval(), Asserts().eval()):
            for tenant in [session.add(model, example_inputs=(IDS,)) for _ in range(2)]:
                assert torch.equal(tenant(IDS), IDS * 2)
                with pytest.raises(st.ModelError):
                    tenant(IDS + ROWS)
