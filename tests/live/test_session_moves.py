"""A running session moves to another plan: under load nothing is lost, late or answered wrongly."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, wait

import pytest
import torch
from models import Latch, X, mlp
from test_planned_session import CORES, CPU, PICTURE, filled, load, on, part, plan, profiles
from torch import Tensor

from spacetime import replay
from spacetime.errors import DeadlineExceeded, PlanError, QueueFull
from spacetime.live.planned_session import PlannedSession
from spacetime.plan import Plan
from spacetime.workload.workload import Tenant, Workload

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")

APART = plan(part("a", on("t0", 4)), part("b", on("t1", 4)))
TURNED = plan(part("a", on("t1", 8)), part("b", on("t0", 2)))  # each on the other's core
TOGETHER = plan(part("ab", on("t0", 2, duty_ms=90), on("t1", 2, duty_ms=90), units=2))
SPLIT = plan(
    part("a", on("t0", 4, 10), on("t1", 8, 10)), part("b", on("t0", 4, 10), on("t1", 1, 10))
)
PROCESSES = plan(part("ab", on("t0", 4), on("t1", 4), units=2, procs=2))
PLANS = (APART, TURNED, TOGETHER, SPLIT, PROCESSES)


class Asking:
    """Asks tenants in turn from threads of its own until told to stop; keeps every answer."""

    def __init__(self, session: PlannedSession, inputs: dict[str, Tensor], most: int = 24) -> None:
        self.asked: list[tuple[str, Tensor, Future[Tensor]]] = []
        self._session, self._inputs = session, inputs
        self._room, self._stop = threading.Semaphore(most), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(2)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for name in itertools.cycle(self._inputs):
            if self._stop.is_set():
                return
            self._room.acquire()
            x = torch.randn(self._inputs[name].shape, generator=draw)
            future = self._session.tenants[name].submit(x)
            future.add_done_callback(lambda _: self._room.release())
            self.asked.append((name, x, future))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("device", ["cpu", "fake:h200"])
def test_every_answer_is_right_while_plans_change_under_load(device: str) -> None:
    workload, points, plans = load("mlp", "conv"), profiles(), PLANS
    if device != "cpu":
        points = profiles("h200-141gb", "sm", (48, 84, 132))
        plans = tuple(_on_sms(each) for each in (APART, TURNED, TOGETHER))
    with PlannedSession(
        plans[0],
        workload,
        points,
        device=device,
        ladder=plans if device != "cpu" else (),
        record=True,
    ) as session:
        models = filled(session, workload)
        asking = Asking(session, {"t0": X, "t1": PICTURE})
        for each in (*plans[1:], *plans):
            before = len(asking.asked)
            moved = session.apply(each)
            assert session.plan is each
            assert moved.kept + moved.drained > 0
            while len(asking.asked) < before + 20:
                wait([asking.asked[-1][2]] if asking.asked else [], 1)
        asking.stop()
        wait([future for _, _, future in asking.asked], 60)
        report = session.report()
    again = replay(session.recording())  # of routes, batches and lanes that changed meanwhile
    again.check()
    assert (again.requests, again.drops) == (len(asking.asked), 0)
    for name, x, future in asking.asked:
        with torch.no_grad():
            torch.testing.assert_close(future.result(0), models[name](x), rtol=1e-4, atol=1e-5)
    overall = report["overall"]
    assert overall["offered"] == overall["completed"] == len(asking.asked)
    assert not any(overall["dropped"].values())


def _on_sms(made: Plan) -> Plan:
    sizes = {1: 48, 2: 132}
    return plan(*(
        part(p.id, *p.tenants, units=sizes[p.units], kind="sm", procs=p.procs)
        for p in made.gpus[0].partitions
    ), device="h200-141gb")  # fmt: skip


def test_what_waits_goes_along_and_keeps_its_deadline() -> None:
    workload = Workload((*load("mlp", "mlp").tenants, Tenant("hold", "mlp", 30_000, 1.0)))
    before = plan(part("a", on("hold", 1, 1.0), on("t0", 4)), part("b", on("t1", 4)))
    after = plan(part("a", on("hold", 1, 1.0)), part("b", on("t0", 4), on("t1", 4)))
    with PlannedSession(before, workload, profiles(), device="cpu") as session:
        filled(session, Workload(workload.tenants[:2]))
        latch = Latch().eval()
        held = session.add(latch, example_inputs=(X,), name="hold").submit(torch.ones(1, 6))
        latch.held.wait(60)
        waiting = [session.tenants["t0"].submit(X) for _ in range(5)]
        late = session.tenants["t0"].submit(X, deadline_ms=0.001)
        moved = session.apply(after)  # both lanes stay: nothing drains, though one is held
        assert (moved.opened, moved.kept, moved.drained) == (0, 2, 0)
        wait(waiting, 60)
        assert all(future.exception(0) is None for future in waiting)
        assert isinstance(late.exception(60), DeadlineExceeded)
        assert not held.done()
        latch.open.set()
        held.result(60)


def test_old_lanes_finish_what_they_run_before_the_move_ends() -> None:
    workload = Workload((Tenant("hold", "mlp", 30_000, 1.0), *load("mlp").tenants))
    before = plan(part("a", on("hold", 1, 1.0)), part("b", on("t0", 4)))
    after = plan(part("ab", on("hold", 1, 1.0, duty_ms=900), on("t0", 4, duty_ms=90), units=2))
    after = plan(part("ab", on("hold", 1, 1.0), on("t0", 4), units=2))
    with PlannedSession(before, workload, profiles(), device="cpu") as session:
        latch = Latch().eval()
        held = session.add(latch, example_inputs=(X,), name="hold").submit(torch.ones(1, 6))
        session.add(mlp(0), example_inputs=(X,), name="t0")
        latch.held.wait(60)
        moving = threading.Thread(target=session.apply, args=(after,))
        moving.start()
        while session.plan is before:  # until the routes have changed
            session.tenants["t0"](X)
        session.tenants["t0"](X)
        assert moving.is_alive()  # the old lane still runs what it began
        latch.open.set()
        moving.join(60)
        assert not moving.is_alive()
        held.result(60)
        assert session.report()["partitions"][2]["id"] == "ab"


def test_a_full_queue_and_an_overload_are_reconciled_across_moves() -> None:
    workload = load("mlp", "mlp")
    with PlannedSession(APART, workload, profiles(), device="cpu") as session:
        models = {f"t{n}": mlp(n) for n in range(2)}
        for name, model in models.items():
            session.add(model, example_inputs=(X,), name=name, queue_limit=8, slo_ms=5)
        asked: list[Future[Tensor]] = []
        refused = 0
        for number in range(400):
            if number % 100 == 50:
                session.apply(PLANS[number // 100 + 1])
            try:
                asked.append(session.tenants[f"t{number % 2}"].submit(X))
            except QueueFull:
                refused += 1
        wait(asked, 60)
        overall = session.report()["overall"]
    answered = sum(future.exception(0) is None for future in asked)
    assert overall["offered"] == len(asked) + refused == 400
    assert overall["completed"] == answered
    assert overall["dropped"]["queue-full"] == refused
    assert sum(overall["dropped"].values()) == 400 - answered


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (plan(part("p", on("t0", 4), on("t1", 4), units=CORES + 1)), "units"),
        (plan(part("p", on("t0", 4))), "t1: rate"),
        (plan(part("p", on("t0", 4), on("t1", 4)), device="cpu-99"), "device"),
    ],
)
def test_a_plan_that_is_refused_changes_nothing(new: Plan, reason: str) -> None:
    workload = load("mlp", "conv")
    with PlannedSession(APART, workload, profiles(), device="cpu") as session:
        filled(session, workload)
        with pytest.raises(PlanError, match=reason):
            session.apply(new)
        assert session.plan is APART
        assert len(session.partitions) == 2
        session.tenants["t0"](X)


def test_what_a_session_cannot_become_is_said() -> None:
    workload = load("mlp", "conv")
    with PlannedSession(APART, workload, profiles(), device="cpu", max_batch=4) as session:
        filled(session, workload)
        with pytest.raises(PlanError, match="t1: the plan gives it batches of 8, its model was"):
            session.apply(TURNED)
        session.apply(TOGETHER)
    points = profiles("h200-141gb", "sm", (48, 132))
    with (
        PlannedSession(_on_sms(APART), workload, points, device="fake:h200") as session,
        pytest.raises(PlanError, match=r"no graph was captured .* in its ladder"),
    ):
        session.apply(_on_sms(TOGETHER))


def test_plans_may_come_and_go_without_end() -> None:
    workload = load("mlp", "conv")
    with PlannedSession(APART, workload, profiles(), device="cpu") as session:
        filled(session, workload)
        for each in PLANS * 3:
            session.apply(each)
        opened = len(session.partitions)
        threads = threading.active_count()
        for each in PLANS * 3:
            assert session.apply(each).opened == 0
        assert len(session.partitions) == opened
        assert threading.active_count() == threads
        assert CPU in session.plan.device
