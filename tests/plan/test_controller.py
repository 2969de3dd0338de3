"""When a controller plans anew, and when it lets things be."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.controller import Controller, ControllerOptions, Decision, Outcome, PeriodCounts
from spacetime.units import SECOND
from spacetime.workload.workload import Tenant, Workload

PERIOD = 5 * SECOND
EACH = 100.0  # requests a second one device serves


@dataclass
class Planner:
    """One device for every hundred requests a second of a tenant; at most `most` devices."""

    most: int = 100
    asked: list[tuple[float, ...]] = field(default_factory=list)

    def __call__(self, workload: Workload) -> Plan:
        self.asked.append(tuple(tenant.rate_rps for tenant in workload.tenants))
        gpus: list[GpuPlan] = []
        for tenant in workload.tenants:
            count = -int(-tenant.rate_rps // EACH)
            for _ in range(count):
                serves = (Assignment(tenant.name, 8, tenant.rate_rps / count, 40.0),)
                number = len(gpus)
                gpus.append(GpuPlan(number, (PartitionPlan(f"{number}/0", "mps", 100, serves),)))
        if len(gpus) > self.most:
            raise InfeasibleError("a", "gpus", f"needs {len(gpus)}")
        return Plan("test", "a100-80gb", tuple(gpus))


@dataclass
class Watched:
    """A controller of tenants a and b, at 80 requests a second each, driven period by period."""

    planner: Planner = field(default_factory=Planner)
    options: ControllerOptions = field(default_factory=ControllerOptions)
    now: int = 0

    def __post_init__(self) -> None:
        load = Workload(tuple(Tenant(name, "resnet50", 100.0, 80.0) for name in "ab"))
        headroom = self.options.headroom
        plan = self.planner(load.with_rates([80 * headroom, 80 * headroom]))
        self.controller = Controller(plan, load, self.planner, self.options)

    def see(self, a: float, b: float, *, met: float = 1.0) -> Decision:
        self.now += PERIOD
        counts = [round(rate * 5) for rate in (a, b)]
        return self.controller.observe(
            self.now, [PeriodCounts(count, count, round(count * met)) for count in counts]
        )

    def finish(self) -> None:
        self.controller.moved(self.now)

    def until_move(self, a: float, b: float, periods: int = 40) -> tuple[int, Decision]:
        for number in range(1, periods + 1):
            found = self.see(a, b)
            if found.outcome is not Outcome.STAY:
                return number, found
        pytest.fail("it stayed")


def test_rates_as_planned_move_nothing() -> None:
    watched = Watched()
    for _ in range(200):
        assert watched.see(80, 80).outcome is Outcome.STAY
    assert len(watched.planner.asked) == 1


def test_a_rise_is_seen_within_a_period_and_planned_with_headroom() -> None:
    watched = Watched()
    found = watched.see(160, 80)
    assert found.outcome is Outcome.MOVE
    assert found.why.startswith("a: ")
    surely = (800 - 2 * 800**0.5) / 5
    assert watched.planner.asked[-1] == pytest.approx((surely * 1.25, 100.0))
    assert found.move is not None
    assert found.move.new is watched.controller.plan


def test_nothing_else_is_given_while_a_move_is_under_way() -> None:
    watched = Watched()
    watched.see(160, 80)
    assert watched.see(400, 80).outcome is Outcome.STAY
    watched.finish()
    assert watched.see(400, 80).outcome is Outcome.MOVE


def test_a_small_tenants_noise_is_no_rise() -> None:
    """Twice the rate of a tenant with ten requests a period is one deviation in three."""
    load = Workload((Tenant("a", "resnet50", 100.0, 2.0),))
    planner = Planner()
    controller = Controller(planner(load.with_rates([2.5])), load, planner)
    assert controller.observe(PERIOD, [PeriodCounts(20, 20, 20)]).outcome is Outcome.STAY
    assert controller.observe(2 * PERIOD, [PeriodCounts(2, 2, 2)]).outcome is Outcome.STAY


def test_a_fall_counts_only_after_calm_and_only_for_fewer_devices() -> None:
    watched = Watched(options=ControllerOptions(half_life_s=1.0, calm_s=30.0, dwell_s=0.0))
    watched.see(240, 80)
    watched.finish()
    number, found = watched.until_move(40, 80)
    assert (found.outcome, number) == (Outcome.MOVE, 6)  # the sixth period ends 30 s after the fall
    assert len(watched.controller.plan.gpus) == 2
    watched.finish()
    for _ in range(40):
        assert watched.see(30, 60).outcome is Outcome.STAY  # still two devices: no gain


def test_a_short_dip_moves_nothing() -> None:
    watched = Watched(options=ControllerOptions(half_life_s=1.0))
    watched.see(240, 80)
    watched.finish()
    for _ in range(30):
        for rate in (100, 100, 240):
            assert watched.see(rate, 80).outcome is Outcome.STAY


def test_an_infeasible_plan_is_reported_once_and_the_old_one_stays() -> None:
    watched = Watched(Planner(most=4))
    before = watched.controller.plan
    found = watched.see(800, 80)
    assert found.outcome is Outcome.REFUSED
    assert "needs 1" in found.why
    assert found.why.endswith("the old plan stays")
    for _ in range(50):
        assert watched.see(800, 80).outcome is Outcome.STAY
    assert watched.controller.plan is before
    assert watched.see(1600, 80).outcome is Outcome.REFUSED  # another rise: said anew


def test_bad_answers_at_planned_rates_raise_the_alarm_and_the_demand() -> None:
    watched = Watched()
    assert watched.see(80, 80, met=0.9).outcome is Outcome.STAY  # once may be chance
    found = watched.see(80, 80, met=0.9)
    assert found.outcome is Outcome.MOVE
    assert found.why == "a: 90.0% in time, b: 90.0% in time"
    assert watched.planner.asked[-1] == pytest.approx((115.0, 115.0))
    watched.finish()
    boosts = []
    for _ in range(40):
        if watched.see(80, 80, met=0.5).outcome is Outcome.MOVE:
            boosts.append(watched.planner.asked[-1][0] / 100)
            watched.finish()
    assert max(boosts) == pytest.approx(2.0)  # and no further


def test_a_move_that_needs_more_devices_than_there_are_is_refused() -> None:
    watched = Watched(options=ControllerOptions(gpus=2))
    found = watched.see(160, 80)
    assert found.outcome is Outcome.REFUSED
    assert found.why.endswith("the move needs 3 devices, there are 2")


def test_time_must_pass_and_every_tenant_be_counted() -> None:
    controller = Watched().controller
    for now, seen in ((0, [PeriodCounts(1)] * 2), (PERIOD, [PeriodCounts(1)])):
        with pytest.raises(ValueError, match="time must pass, and every tenant be counted"):
            controller.observe(now, seen)


@pytest.mark.parametrize(
    ("name", "value"),
    [("half_life_s", 0), ("headroom", 0.9), ("up", float("inf")), ("down", 1.0), ("alarm", 1.1),
     ("boost", 0.5), ("gpus", 0), ("calm_s", -1), ("dwell_s", float("nan"))],
)  # fmt: skip
def test_an_option_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(UnsupportedError, match=f"{name}: must be"):
        ControllerOptions(**{name: value})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_comes_the_plan_in_force_is_the_last_move_and_time_between_falls_is_kept(
    seed: int,
) -> None:
    rng = random.Random(seed)
    watched = Watched(Planner(most=12))
    last_fall, plan = -(10**18), watched.controller.plan
    rate = 80.0
    for _ in range(150):
        rate = min(max(rate * rng.choice([0.7, 0.9, 1.0, 1.1, 1.6]), 0.2), 900.0)
        found = watched.see(rate, 80, met=rng.choice([1.0, 1.0, 0.8]))
        assert (found.move is not None) == (found.outcome is Outcome.MOVE)
        if found.move is None:
            assert watched.controller.plan is plan
            continue
        assert found.move.old is plan
        fell = len(found.move.new.gpus) < len(plan.gpus) and "planned for" in found.why
        plan = watched.controller.plan
        if fell and watched.controller.rates[0] < 80:
            assert watched.now - last_fall >= 30 * SECOND
            last_fall = watched.now
        watched.finish()
