"""Tenants that join and leave a device while others are served, and how many it holds."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch
from test_device_session import X, inputs, net

from spacetime import Session, weights
from spacetime.errors import ClosedError, UnsupportedError


def test_tenants_come_and_go_while_others_are_served() -> None:
    with Session("fake:h200", max_batch=4) as session:
        stay = [session.add(net(seed), example_inputs=(X,)) for seed in range(2)]
        rows, done = session.families[0].weights.rows, threading.Event()  # type: ignore[union-attr]
        wrong: list[str] = []
        given = [inputs(3, number) for number in range(2)]  # here: one generator for all threads
        with torch.no_grad():
            expected = [net(number)(x) for number, x in enumerate(given)]

        def load(number: int) -> None:
            while not done.is_set():
                answer = stay[number].submit(given[number]).result(timeout=20)
                if not torch.allclose(answer, expected[number], rtol=1e-4, atol=1e-5):
                    wrong.append(f"tenant {number}")

        callers = [threading.Thread(target=load, args=(number,)) for number in range(2)]
        for caller in callers:
            caller.start()
        for seed in range(2, 10):
            guest = session.add(net(seed), example_inputs=(X,))
            futures = [guest.submit(inputs(2, seed)) for _ in range(4)]
            session.remove(guest)
            for future in futures:
                with contextlib.suppress(ClosedError):  # those that still waited
                    torch.testing.assert_close(future.result(timeout=20).shape, torch.Size([2, 5]))
        done.set()
        for caller in callers:
            caller.join()
        assert wrong == []
        assert rows == {0, 1}


def test_a_family_is_full_at_its_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MOST_TENANTS", 1)
    with Session("fake:h200", max_batch=4) as session:
        session.add(net(0), example_inputs=(X,))
        with pytest.raises(UnsupportedError, match="at most 1 tenants"):
            session.add(net(1), example_inputs=(X,))
