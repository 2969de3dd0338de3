"""Priorities of a running session: who starts first behind a lane that a latch holds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import Latch
from torch import nn

from spacetime import Session
from spacetime.errors import InvalidInput
from spacetime.policy import PRESETS, Policy
from spacetime.reports.recording import replay
from spacetime.session.tenant import Tenant

X = torch.zeros(1, 6)
NEVER: dict[str, Any] = {"age_ns": None}  # machines may be slow


class Queue:
    """What is submitted here waits until the latch opens; `ended` has it in its order."""

    def __init__(self, session: Session, latch: Latch) -> None:
        self.session, self.latch = session, latch
        self.ended: list[str] = []
        self._futures: list[Future[Any]] = []

    def add(self, name: str, priority: int = 0) -> Tenant:
        """A tenant of a family of its own."""
        model = nn.Linear(6, 2 + len(self.session.tenants)).eval()
        return self.session.add(model, example_inputs=(X,), name=name, priority=priority)

    def hold(self) -> None:
        held = self.session.tenants["latch"].submit(X + 1)
        assert self.latch.held.wait(60)
        self._futures.append(held)

    def submit(self, tenant: Tenant, name: str, **options: Any) -> None:
        future = tenant.submit(X, **options)
        future.add_done_callback(lambda _: self.ended.append(name))
        self._futures.append(future)

    def release(self) -> list[str]:
        self.latch.open.set()
        wait(self._futures, 60)
        return self.ended


@contextmanager
def queue(policy: Policy) -> Iterator[Queue]:
    latch = Latch().eval()
    with Session("cpu", lanes=1, policy=policy, record=True) as session:
        session.add(latch, example_inputs=(X,), name="latch")
        yield Queue(session, latch)
        latch.open.set()
    replay(session.recording()).check()


@pytest.mark.parametrize("policy", PRESETS)
def test_the_larger_priority_starts_first_and_a_requests_own_wins(policy: str) -> None:
    with queue(replace(PRESETS[policy], **NEVER)) as made:
        low, plain, high = made.add("low", -1), made.add("plain"), made.add("high", 5)
        made.hold()
        made.submit(low, "low")
        made.submit(plain, "plain")
        made.submit(high, "high as low", priority=-2)
        made.submit(high, "high")
        made.submit(low, "low as highest", priority=6)
        assert made.release() == ["low as highest", "high", "plain", "low", "high as low"]


def test_a_lane_that_passed_somebody_over_serves_it_at_its_age() -> None:
    with queue(Policy(order="fifo", batch="one", age_ns=1)) as made:
        low, high = made.add("low"), made.add("high", 1)
        made.hold()
        made.submit(low, "low")
        for number in range(3):
            made.submit(high, f"high {number}")
        assert made.release() == ["high 0", "low", "high 1", "high 2"]


@pytest.mark.parametrize("wrong", [2**31, -(2**31), 1.5, "1", True])
def test_what_is_no_priority_is_refused_in_a_line(wrong: Any) -> None:
    says = "priority must be a whole number from -2147483647 to 2147483647"
    with Session("cpu", lanes=1) as session:
        with pytest.raises(InvalidInput, match=says):
            session.add(nn.Linear(6, 2).eval(), example_inputs=(X,), priority=wrong)
        tenant = session.add(nn.Linear(6, 2).eval(), example_inputs=(X,))
        with pytest.raises(InvalidInput, match=says):
            tenant.submit(X, priority=wrong)
