"""The controller beside a running session: what it counts, the moves it makes, what it survives."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest
from models import X, mlp
from test_planned_session import CORES, filled, load, on, part, plan, profiles

from spacetime.errors import InfeasibleError, QueueFull, UnsupportedError
from spacetime.live.controller_thread import Event, LiveController
from spacetime.live.planned_session import PlannedSession
from spacetime.plan import Plan
from spacetime.plan.controller import ControllerOptions
from spacetime.units import SECOND
from spacetime.workload.workload import Workload

pytestmark = pytest.mark.skipif(CORES < 2, reason="two partitions need two cores")

APART = plan(part("a", on("t0", 4)), part("b", on("t1", 4)))
BURST = 1200  # of one tenant, of which one core of the profile answers 900 a second


def session_of(workload: Workload) -> PlannedSession:
    return PlannedSession(APART, workload, profiles(), device="cpu")


def ask(session: PlannedSession, name: str, count: int) -> None:
    """Sends `count` requests and waits for their answers."""
    for _ in range(count // 200):
        wait([session.tenants[name].submit(X) for _ in range(200)], 60)


def accepts(session: PlannedSession) -> bool:
    """Whether one more request of t0 finds room."""
    try:
        session.tenants["t0"].submit(X)
    except QueueFull:
        return False
    return True


def test_a_rise_is_counted_planned_for_and_moved_to() -> None:
    workload = load("mlp", "mlp")
    with session_of(workload) as session:
        filled(session, workload)
        controller = LiveController(session)
        ask(session, "t0", BURST)
        controller.step(controller._controller._now + SECOND)
        (event,) = controller.events
        assert event.outcome == "move"
        assert event.why.startswith("t0: ")
        assert event.moved is not None
        assert sum(each.rate_rps for _, _, each in session.plan if each.tenant == "t0") > BURST
        assert session.workload.tenants[0].rate_rps > BURST
        ask(session, "t0", 200)
        assert session.report()["overall"]["completed"] == BURST + 200


def test_what_is_as_planned_moves_nothing() -> None:
    workload = load("mlp", "mlp", rate_rps=200)
    made = plan(part("a", on("t0", 4, 200)), part("b", on("t1", 4, 200)))
    with PlannedSession(made, workload, profiles(), device="cpu") as session:
        filled(session, workload)
        controller = LiveController(session, options=ControllerOptions(headroom=1.0))
        for second in range(3):
            ask(session, "t0", 200)
            ask(session, "t1", 200)
            controller.step(controller._controller._now + SECOND)
            assert controller.events == [], second
        assert session.plan is made
        assert controller.rates["t0"] == pytest.approx(200)


def test_refused_requests_are_counted_as_demand() -> None:
    workload = load("mlp", "mlp")
    with session_of(workload) as session:
        session.add(mlp(0), example_inputs=(X,), name="t0", queue_limit=1)
        session.add(mlp(1), example_inputs=(X,), name="t1")
        accepted = sum(accepts(session) for _ in range(500))
        came, ended, _ = session.counts()["t0"]
        assert came == 500
        assert ended >= 500 - accepted


def test_a_planner_that_finds_nothing_leaves_the_session_as_it_was() -> None:
    def nothing(_: Workload) -> Plan:
        raise InfeasibleError("t0", "rate", "too much")

    workload = load("mlp", "mlp")
    with session_of(workload) as session:
        filled(session, workload)
        controller = LiveController(session, planning=nothing)
        ask(session, "t0", BURST)
        controller.step(controller._controller._now + SECOND)
        assert [event.outcome for event in controller.events] == ["refused"]
        assert session.plan is APART


def test_a_tenant_that_leaves_and_comes_back_is_counted_from_zero() -> None:
    workload = load("mlp", "mlp", rate_rps=200)
    made = plan(part("a", on("t0", 4, 200)), part("b", on("t1", 4, 200)))
    with PlannedSession(made, workload, profiles(), device="cpu") as session:
        models = filled(session, workload)
        controller = LiveController(session, options=ControllerOptions(headroom=1.0))
        ask(session, "t0", 400)
        controller.step(controller._controller._now + SECOND)
        before = controller.rates["t0"]
        session.remove(session.tenants["t0"])
        controller.step(controller._controller._now + SECOND)
        assert controller.rates["t0"] < before  # while away, nothing arrives
        session.add(models["t0"], example_inputs=(X,), name="t0")
        ask(session, "t0", 200)
        away = controller.rates["t0"]
        controller.step(controller._controller._now + SECOND)
        assert away < controller.rates["t0"] < 200
        assert controller.failure is None


def test_the_tally_says_what_was_asked_and_what_came_of_it() -> None:
    def nothing(_: Workload) -> Plan:
        raise InfeasibleError("t0", "rate", "too much")

    workload = load("mlp", "mlp")
    told: list[Event] = []
    right = plan(part("a", on("t0", 4, 750)), part("b", on("t0", 4, 750), on("t1", 1, 30)))
    answers = iter([nothing, lambda _: right])

    def planning(wanted: Workload) -> Plan:
        return next(answers)(wanted)

    with session_of(workload) as session:
        filled(session, workload)
        controller = LiveController(session, planning=planning, tell=told.append)
        assert controller.tally.last_s is None
        for count in (BURST, 2 * BURST):
            ask(session, "t0", count)
            controller.step(controller._controller._now + SECOND)
        tally = controller.tally
        assert dict(tally.replans) == {("refused", "rise"): 1, ("move", "rise"): 1}
        assert told == controller.events
        assert told[1].moved is not None
        assert tally.lanes["opened"] + tally.lanes["kept"] == 2
        assert tally.seconds["prepare"] == told[1].moved.prepare_ms / 1e3
        assert tally.last_s is not None
        assert controller.planned == {"t0": 1500, "t1": 30}
        assert controller.units == 2
        assert [lane.granted > 0 for lane in session.counters().lanes].count(True) == 2


def test_a_planner_with_a_defect_ends_the_watch_and_says_so() -> None:
    def broken(_: Workload) -> Plan:
        raise ZeroDivisionError("here")

    workload = load("mlp", "mlp")
    told = threading.Event()
    with session_of(workload) as session:
        filled(session, workload)
        controller = LiveController(
            session, planning=broken, period_s=0.01, tell=lambda event: told.set()
        )
        controller.start()
        ask(session, "t0", 1000)
        assert told.wait(30)
        assert controller.events[-1].outcome == "failed"
        assert controller.events[-1].why.startswith("ZeroDivisionError: here")
        ask(session, "t0", 200)  # the plan in force goes on
        with pytest.raises(ZeroDivisionError):
            controller.stop()


def test_a_plan_the_session_refuses_is_said_and_the_next_one_is_taken() -> None:
    workload = load("mlp", "mlp")
    wrong = plan(part("a", on("t0", 4, 1500)), part("b", on("t1", 4, 30)))
    right = plan(part("a", on("t0", 4, 750)), part("b", on("t0", 4, 750), on("t1", 1, 30)))
    offered = iter([wrong, right])
    with session_of(workload) as session:
        filled(session, workload)
        controller = LiveController(session, planning=lambda _: next(offered))
        ask(session, "t0", BURST)
        controller.step(controller._controller._now + SECOND)
        assert session.plan is APART
        ask(session, "t0", 2 * BURST)
        controller.step(controller._controller._now + SECOND)
        assert [event.outcome for event in controller.events] == ["refused", "move"]
        assert "utilisation" in controller.events[0].why
        assert session.plan.gpus == right.gpus or len(session.plan.gpus[0].partitions) == 2


def test_the_thread_watches_by_itself_and_ends_when_told() -> None:
    workload = load("mlp", "mlp")
    looked = threading.Event()

    def planning(wanted: Workload) -> Plan:
        looked.set()
        raise InfeasibleError("t0", "rate", "seen")

    with session_of(workload) as session:
        filled(session, workload)
        with LiveController(session, planning=planning, period_s=0.01) as controller:
            ask(session, "t0", 1000)
            assert looked.wait(30)
        assert controller.events
        with pytest.raises(UnsupportedError, match="period_s: must be from"):
            LiveController(session, period_s=0)
