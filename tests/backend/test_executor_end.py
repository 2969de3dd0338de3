"""How an executor ends: closing, hanging launches, forks, the interpreter's exit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from spacetime import _native

from .conftest import MS, SOON, Rig

Make = Callable[..., Rig]
NOOP = _native.NativeFunction.noop()


def test_closing_without_drain_drops_what_waits(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    rig.executor.submit(rig.tenant, 0)
    assert latch.wait_entered(timeout_ns=SOON)
    for token in range(1, 4):
        rig.executor.submit(rig.tenant, token)
    closed: list[bool] = []
    closer = threading.Thread(
        target=lambda: closed.append(rig.executor.close(drain=False, timeout_ns=SOON))
    )
    closer.start()
    dropped = rig.ended(3)
    assert {(end.token, end.outcome) for end in dropped} == {(i, "closed") for i in (1, 2, 3)}
    latch.open()
    closer.join()
    assert [(end.token, end.outcome) for end in rig.ended(1)] == [(0, "ok")]
    assert closed == [True]
    assert rig.executor.completions() is None


def test_after_close_everything_is_refused(make: Make) -> None:
    rig = make(1, function=NOOP)
    assert rig.executor.close(timeout_ns=SOON)
    assert rig.executor.close(timeout_ns=SOON)
    with pytest.raises(_native.ClosedError, match="the executor is closed"):
        rig.executor.submit(rig.tenant, 0)
    ticket = rig.executor.submit_bulk([rig.tenant], count=5)
    assert (ticket.pending, ticket.counts["closed"]) == (0, 5)
    assert rig.executor.completions() is None
    for native in (True, False):
        with pytest.raises(_native.ClosedError):
            rig.executor.add_lane([0], native=native)


def test_a_launch_that_hangs_is_given_up(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    rig.executor.submit(rig.tenant, 0)
    assert latch.wait_entered(timeout_ns=SOON)
    rig.executor.submit(rig.tenant, 1)
    assert not rig.executor.close(timeout_ns=MS)
    assert sorted((end.token, end.outcome) for end in rig.ended(2)) == [
        (0, "closed"),
        (1, "closed"),
    ]


@pytest.mark.parametrize("taken", [False, True])
def test_a_server_that_never_comes_back_cannot_hang_close(make: Make, taken: bool) -> None:
    rig = make(native=False)
    rig.executor.submit(rig.tenant, 0)
    launch = rig.lanes[0].take(SOON) if taken else None
    assert not rig.executor.close(timeout_ns=MS)
    assert rig.ended(1)[0].outcome == "closed"
    if launch is not None:
        assert not rig.lanes[0].finish(launch)
    assert rig.lanes[0].take() is None


def test_closing_unblocks_every_waiter(make: Make) -> None:
    rig = make(native=False)
    got: list[object] = []
    waiters = [
        threading.Thread(target=lambda: got.append(rig.lanes[0].take())),
        threading.Thread(target=lambda: got.append(rig.executor.completions())),
    ]
    for waiter in waiters:
        waiter.start()
    assert rig.executor.close(timeout_ns=SOON)
    for waiter in waiters:
        waiter.join(timeout=SOON / 10**9)
    assert got == [None, None]


def test_dropping_the_last_reference_closes(latch: _native.Latch) -> None:
    executor = _native.Executor(_native.Policy())
    lane = executor.add_lane(_native.available_cores())
    tenant = executor.add_tenant(executor.add_family([1]))
    executor.submit(tenant, 0)
    ticket = executor.submit_bulk([tenant], count=3)
    del executor
    assert lane.closed
    assert (ticket.pending, ticket.counts["closed"]) == (0, 3)


def test_a_forked_child_gets_an_error_and_can_exit(make: Make) -> None:
    rig = make(2, function=NOOP)
    rig.executor.submit_bulk([rig.tenant], count=10)
    child = os.fork()
    if child == 0:
        with pytest.raises(RuntimeError, match="opened before a fork"):
            rig.executor.submit(rig.tenant, 0)
        with pytest.raises(RuntimeError, match="opened before a fork"):
            rig.lanes[0].take(0)
        with pytest.raises(RuntimeError, match="opened before a fork"):
            rig.executor.close()
        rig.lanes.clear()
        del rig.executor  # its finaliser neither joins nor hangs
        executor = _native.Executor(_native.Policy())
        tenant = executor.add_tenant(executor.add_family([1]))
        executor.set_native(0, NOOP)
        executor.submit(tenant, 1)
        os._exit(0 if executor.close() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rig.executor.submit_bulk([rig.tenant], count=10).wait(SOON)


@pytest.fixture
def _control_c() -> Iterator[None]:
    """Control-C raises, also in a shell's background job, where it begins ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_control_c")
def test_control_c_interrupts_a_wait(make: Make, latch: _native.Latch) -> None:
    rig = make(1, function=latch.function)
    ticket = rig.executor.submit_bulk([rig.tenant], count=1)

    def interrupted(ready: Callable[[], object], wait: Callable[[], object]) -> None:
        def interrupt() -> None:
            while not ready():
                os.sched_yield()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        wait()

    def closing() -> bool:
        try:
            rig.executor.submit(rig.tenant, 0)
        except _native.ClosedError:
            return True
        except _native.QueueFullError:
            pass
        return False

    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: latch.wait_entered(timeout_ns=SOON), lambda: ticket.wait(SOON))
    with pytest.raises(KeyboardInterrupt):
        interrupted(closing, lambda: rig.executor.close(timeout_ns=SOON))
    latch.open()
    assert rig.executor.close(timeout_ns=SOON)


def test_an_interpreter_exits_with_work_in_flight() -> None:
    code = """
from spacetime import _native
executor = _native.Executor(_native.Policy())
executor.add_lane(_native.available_cores(), native=True)
tenant = executor.add_tenant(executor.add_family([1]))
executor.set_native(0, _native.NativeFunction.spin(10_000))
executor.submit_bulk([tenant], count=500)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
