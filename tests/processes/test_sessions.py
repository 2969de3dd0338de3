"""Sessions whose lanes are processes: the contract holds, also when processes die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from models import Branch, Latch, Picky, X, convnet, mlp
from proc_models import CRASHES, EXITS, HOLDS, RAISES, DiesAtOnce, Structured, Tied, Troubled
from signals import stop
from torch import Tensor, nn

import spacetime as st
from spacetime.errors import LaneLost
from spacetime.processes.backend import ProcessBackend
from spacetime.processes.lanes import LaneProcesses

IDS = torch.zeros(1, 5, dtype=torch.long)


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def lanes_of(session: st.Session) -> LaneProcesses:
    assert isinstance(session.backend, ProcessBackend)
    return session.backend.lanes


def until_back(session: st.Session) -> None:
    """Waits until every lane has a process, which the lanes tell on their condition."""
    changed = lanes_of(session)._keeping.changed
    with changed:
        assert changed.wait_for(lambda: None not in lanes_of(session).pids, 120)


@pytest.fixture(scope="module")
def session() -> Iterator[st.Session]:
    with st.Session("cpu", isolation="process", lanes=2) as session:
        yield session
    left = psutil.Process().children(recursive=True)
    assert not [child for child in left if "spacetime.processes.child" in child.cmdline()]


@pytest.fixture
def tenants(session: st.Session) -> Iterator[list[st.Tenant]]:
    """What a test added goes with it."""
    added: list[st.Tenant] = []
    yield added
    for tenant in added:
        if not tenant.removed:
            session.remove(tenant)


def test_every_answer_is_the_models_own(session: st.Session, tenants: list[st.Tenant]) -> None:
    models: list[nn.Module] = [mlp(0), mlp(1), convnet(0), Tied().eval(), Branch().eval()]
    shapes = [(6,), (6,), (1, 8, 8), (6,), (6,)]
    for m, s in zip(models, shapes, strict=True):
        tenants.append(session.add(m, example_inputs=(torch.randn(1, *s),)))
    rng = random.Random(0)
    asked = []
    for _ in range(200):
        i = rng.randrange(len(models))
        x = torch.randn(rng.choice([1, 1, 2, 5, 40]), *shapes[i])
        asked.append((i, x, tenants[i].submit(x)))
    for i, x, future in asked:
        same(future.result(60), models[i](x).detach())
    big = torch.randn(5000, 6)  # more than the memory they began with
    same(tenants[0](big), models[0](big).detach())
    assert [tenant.report()["completed"] for tenant in tenants] == [
        sum(i == k for i, _, _ in asked) + (k == 0) for k in range(len(models))
    ]
    text = session.explain()
    assert "family of 2: tenant-0, tenant-1" in text
    assert text.count("family of") == 4


def test_structures_keywords_and_constants(session: st.Session, tenants: list[st.Tenant]) -> None:
    model = Structured().eval()
    x, mask = torch.randn(3, 4), torch.ones(3, 4)
    tenant = session.add(model, example_inputs=(x,), example_kwargs={"mask": mask})
    tenants.append(tenant)
    got, want = tenant(x, mask=mask), model(x, mask=mask)
    assert got.keys() == want.keys()
    assert got["version"] == 3
    assert isinstance(got["sum"], tuple)
    same(got["sum"][1], x * 2)
    same(got["kept"], x[:, 1:])
    with pytest.raises(st.InvalidInput, match="mask"):
        tenant(x, mask=torch.ones(2, 4))


def test_models_without_weights_are_a_family_too() -> None:
    with st.Session("cpu", lanes=1) as session:
        same(session.add(nn.ReLU().eval(), example_inputs=(X,))(-X), X)
        same(session.add(nn.ReLU().eval(), example_inputs=(X,))(X + 1), X + 1)
        assert "family of 2: tenant-0, tenant-1" in session.explain()


def test_a_model_that_raises_fails_its_own_request(
    session: st.Session, tenants: list[st.Tenant]
) -> None:
    picky = [session.add(Picky(i).eval(), example_inputs=(IDS,)) for i in range(2)]
    odd = session.add(Troubled().eval(), example_inputs=(X,))
    tenants += [*picky, odd]
    pids = lanes_of(session).pids
    futures = [picky[i % 2].submit(IDS + (99 if i == 7 else i % 9)) for i in range(16)]
    wait(futures, 60)
    assert [i for i, future in enumerate(futures) if future.exception()] == [7]
    with pytest.raises(
        st.ModelError, match=r"tenant tenant-1: the model raised .*index out of range"
    ):
        futures[7].result()
    with pytest.raises(st.ModelError, match="the model raised Odd: on purpose"):
        odd(torch.full((1, 6), RAISES))
    assert lanes_of(session).pids == pids


def test_waiting_requests_are_dropped_cancelled_refused_and_removed(
    session: st.Session, tenants: list[st.Tenant], tmp_path: Path
) -> None:
    gates = [tmp_path / "one", tmp_path / "other"]
    for gate in gates:
        os.mkfifo(gate)

    def add(gate: Path | None = None, queue_limit: int = 1024) -> st.Tenant:
        model = Troubled(gate).eval()
        return session.add(model, example_inputs=(X,), queue_limit=queue_limit)

    holding = [add(gate) for gate in gates]
    limited, leaving = add(queue_limit=1), add()
    tenants += [*holding, limited]
    runs = [tenant.submit(torch.full((1, 6), HOLDS)) for tenant in holding]
    with pytest.raises(st.DeadlineExceeded):
        limited.submit(X, deadline_ms=30).result(60)
    waits = limited.submit(X)
    with pytest.raises(st.QueueFull):
        limited.submit(X)
    assert waits.cancel()
    left = leaving.submit(X)
    session.remove(leaving)
    assert isinstance(left.exception(60), st.ClosedError)
    for gate in gates:
        gate.write_bytes(b"")  # opens once its model reads, which then goes on
    for future in runs:
        same(future.result(60), torch.full((1, 6), HOLDS + 1))


def test_it_is_awaited_and_called_from_threads(
    session: st.Session, tenants: list[st.Tenant]
) -> None:
    models = [mlp(i) for i in range(2)]
    tenants += [session.add(m, example_inputs=(X,)) for m in models]

    async def awaiting() -> None:
        xs = torch.randn(40, 1, 6)
        answers = await asyncio.gather(*(tenants[k % 2].infer(xs[k]) for k in range(40)))
        for k, answer in enumerate(answers):
            same(answer, models[k % 2](xs[k]).detach())

    answers: list[Tensor] = []
    threads = [threading.Thread(target=lambda: answers.append(tenants[0](X))) for _ in range(3)]
    for thread in threads:
        thread.start()
    asyncio.run(awaiting())
    for thread in threads:
        thread.join()
    assert len(answers) == 3


def test_what_no_process_can_take_is_refused_and_disturbs_nobody(session: st.Session) -> None:
    pids = lanes_of(session).pids
    with pytest.raises(st.InvalidInput, match="model must be one that another process can import"):
        session.add(Latch().eval(), example_inputs=(X,))
    with pytest.raises(st.ModelError, match="tenant wrong: the model raised RuntimeError"):
        session.add(mlp(0), example_inputs=(torch.zeros(1, 7),), name="wrong")
    with pytest.raises(st.InvalidInput, match=r"dtype must be one of float32.*got torch.float8"):
        session.add(mlp(0), example_inputs=(torch.zeros(1, 6).to(torch.float8_e4m3fn),))
    assert lanes_of(session).pids == pids
    assert not session.tenants


@pytest.mark.parametrize(("value", "how"), [(EXITS, "exits"), (CRASHES, "crashes")])
def test_a_request_that_ends_its_process_is_lost_and_the_others_are_answered(
    session: st.Session, tenants: list[st.Tenant], value: float, how: str
) -> None:
    tenant = session.add(Troubled().eval(), example_inputs=(X,), name=how)
    tenants.append(tenant)
    futures: list[Future[Tensor]] = [
        tenant.submit(torch.full((1, 6), value if i == 20 else float(i))) for i in range(40)
    ]
    wait(futures, 120)
    lost = [i for i, future in enumerate(futures) if future.exception()]
    assert lost == [20]
    with pytest.raises(LaneLost, match=r"lane \d: its process \d+ died while it ran the request"):
        futures[20].result()
    for i, future in enumerate(futures):
        if i != 20:
            same(future.result(), torch.full((1, 6), i + 1.0))
    until_back(session)


def test_a_model_that_ends_the_process_that_tries_it_takes_one(session: st.Session) -> None:
    until_back(session)
    before = lanes_of(session).pids
    with pytest.raises(LaneLost, match=r"was ended by SIGSEGV"):
        session.add(DiesAtOnce().eval(), example_inputs=(X,))
    until_back(session)
    assert lanes_of(session).pids[1] == before[1]
    assert not session.tenants


def test_every_request_is_answered_once_while_processes_are_killed(
    session: st.Session, tenants: list[st.Tenant]
) -> None:
    model = Troubled().eval()
    tenants += [session.add(model, example_inputs=(X,)) for _ in range(2)]
    until_back(session)
    restarts = lanes_of(session).restarts
    rng = random.Random(1)
    xs = torch.randn(1500, 1, 6)
    answered = [0] * len(xs)
    killed_at = rng.sample(range(len(xs)), 4)
    futures = []

    def count(i: int) -> None:
        answered[i] += 1

    for i, x in enumerate(xs):
        future = tenants[i % 2].submit(x)
        future.add_done_callback(lambda _, i=i: count(i))
        futures.append(future)
        alive = [pid for pid in lanes_of(session).pids if pid is not None]
        if i in killed_at and alive:
            with suppress(ProcessLookupError):  # it was just reaped
                os.kill(rng.choice(alive), signal.SIGKILL)
    wait(futures, 120)
    until_back(session)
    assert answered == [1] * len(xs)
    failed = [future.exception() for future in futures if future.exception()]
    assert all(isinstance(error, LaneLost) for error in failed)
    for x, future in zip(xs, futures, strict=True):
        if future.exception() is None:
            same(future.result(), model(x).detach())
    same(tenants[0](X), model(X).detach())  # may itself be counted a moment after it is answered
    reports = [tenant.report() for tenant in tenants]
    assert sum(report["offered"] for report in reports) == len(xs) + 1
    ended = sum(report["completed"] + sum(report["dropped"].values()) for report in reports)
    assert ended - len(xs) in {0, 1}  # failed ones are among the dropped
    assert lanes_of(session).restarts > restarts


def test_a_stopped_process_is_found_killed_and_replaced(
    session: st.Session, tenants: list[st.Tenant]
) -> None:
    until_back(session)
    model = Troubled().eval()
    tenants.append(session.add(model, example_inputs=(X,)))
    stopped = lanes_of(session).pids[0]
    assert stopped is not None
    stop(stopped)
    futures = [tenants[0].submit(X) for _ in range(20)]
    for future in futures:
        same(future.result(120), model(X).detach())
    until_back(session)
    assert not psutil.pid_exists(stopped)
    assert lanes_of(session).pids[0] not in {None, stopped}


def test_a_lane_moves_to_other_cores_beside_its_old_process(
    session: st.Session, tenants: list[st.Tenant]
) -> None:
    until_back(session)
    model = Troubled().eval()
    tenants.append(session.add(model, example_inputs=(X,)))
    old, other = lanes_of(session).pids
    stop = threading.Event()
    wrong: list[BaseException] = []

    def load() -> None:
        try:
            while not stop.is_set():
                same(tenants[0](X), model(X).detach())
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    session.move_lane(0, session.device.cores)
    stop.set()
    thread.join()
    assert not wrong
    new, unchanged = lanes_of(session).pids
    assert new not in {None, old}
    assert unchanged == other
    assert old is not None
    assert not psutil.pid_exists(old)
    assert new is not None
    assert psutil.Process(new).cpu_affinity() == list(session.device.cores)
    same(tenants[0](X), model(X).detach())
