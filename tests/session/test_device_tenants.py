"""Tenants that join and leave a device while others are served, and how many it holds."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace

import pytest
import torch
from test_device_session import X, inputs, net

from spacetime import Session, _native
from spacetime.devices.device import on_device
from spacetime.errors import ClosedError, UnsupportedError
from spacetime.models.cuda import weights
from spacetime.models.cuda.backend import CudaBackend
from spacetime.models.cuda.capture import TorchFake


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


def test_only_the_last_member_and_want_of_memory_give_pytorchs_cache_back() -> None:
    released: list[str] = []

    @dataclass(frozen=True)
    class Counting(TorchFake):
        def release(self) -> None:
            released.append("given back")

    driver = _native.FakeDriver("h200")
    native = _native.FakeCudaDevice(driver)
    with Session(on_device("fake", native), lanes=1, max_batch=2) as session:
        backend = session.backend
        assert isinstance(backend, CudaBackend)
        counting = Counting(native, torch.device("cpu"))
        backend.lanes = replace(backend.lanes, capturer=counting)
        first, second = (session.add(net(seed), example_inputs=(X,)) for seed in range(2))
        session.remove(first)
        assert released == []  # others serve: it would wait for their launches
        driver.fail(4, 2, call="cuMemCreate")  # the third tenant's row; one was lent to measure
        again = session.add(net(2), example_inputs=(X,))
        assert (driver.failed, released) == (["cuMemCreate"], ["given back"])
        torch.testing.assert_close(again(X), net(2)(X), rtol=1e-4, atol=1e-5)
        for tenant in (second, again):
            session.remove(tenant)
        assert len(released) == 2
