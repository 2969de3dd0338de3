"""Priorities under every policy: who starts first, what may ride along, and that none starves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hand import LATENCY, drops, scheduler, serve_out, starts
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime import _native
from spacetime.policy import PRESETS, Policy
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimResult,
    SimTenant,
    simulate,
)

ONE = {1: 1000}
ORDERS = ("fifo", "edf", "priority", "fair", "duty")
LONELY = {"route": "pinned", "batch": "one", "lend": False}


def served(made: _native.Scheduler) -> list[int]:
    """The order in which what waits behind launch 1 starts."""
    return [request for _, batch in serve_out(made, 1, 10) for request in batch]


def behind(tenants: list[dict], waiting: list[dict], **policy: Any) -> list[int]:
    """The order in which `waiting`, each behind the running request 99, starts."""
    families = [ONE] * (1 + max(tenant.get("family", 0) for tenant in tenants))
    made = scheduler(**{**LONELY, **policy}, families=families, tenants=tenants)
    made.arrive(99, 0, 0)
    for number, request in enumerate(waiting):
        made.arrive(number, now=1 + number, **request)
    return served(made)


# ---- who starts first -------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", [0, 1])
def test_the_highest_level_starts_first_under_every_order(order: str, family: int) -> None:
    tenants = [{}, {"family": family, "priority": 2}, {"priority": -1}]
    waiting = [{"tenant": 2, "deadline": 50_000}, {"tenant": 0, "deadline": 60_000}, {"tenant": 1}]
    assert behind(tenants, waiting, order=order) == [2, 1, 0]


@pytest.mark.parametrize("policy", PRESETS)
def test_the_highest_level_starts_first_under_every_named_policy(policy: str) -> None:
    """One lane, three tenants of a family each, all at once behind a launch that runs."""
    levels = {"low": -1, "middle": 0, "high": 3}
    run = simulate(
        policy=policy,
        lanes=[LaneSpec()],
        families=[FamilySpec.uniform(1, {1: 1_000_000})] * 4,
        tenants=[SimTenant(lane=0, lane_weights=(1.0,), arrivals=SimArrivals.trace(0))]
        + [
            SimTenant(
                family=1 + number,
                lane=0,
                lane_weights=(1.0,),
                priority=level,
                arrivals=SimArrivals.trace(10 + number),
            )
            for number, level in enumerate(levels.values())
        ],
    )
    waits = [tenant.max_ns for tenant in run.tenants[1:]]
    assert waits == sorted(waits, reverse=True)
    assert waits[2] == 2_000_000 - 12


@pytest.mark.parametrize("order", ORDERS)
def test_a_requests_own_priority_wins_over_its_tenants(order: str) -> None:
    tenants = [{"priority": 5}, {"family": 1}]
    waiting = [
        {"tenant": 0, "priority": -2},
        {"tenant": 1},
        {"tenant": 1, "priority": 6},
        {"tenant": 0},
        {"tenant": 0, "priority": 0},
    ]
    first, second, *others = behind(tenants, waiting, order=order)
    assert (first, second, others[-1]) == (2, 3, 0)
    assert sorted(others[:2]) == [1, 4]  # a 0 of its own is a 0, not the tenant's 5


def test_within_a_level_the_policys_order_is_as_ever() -> None:
    tenants = [{"priority": 7}, {"family": 1, "priority": 7}]
    equal = [{}, {"family": 1}]
    waiting = [
        {"tenant": n % 2, "deadline": d}
        for n, d in enumerate([90_000, 70_000, None, 80_000, 70_000])
    ]
    for order in ORDERS:
        assert behind(tenants, waiting, order=order) == behind(equal, waiting, order=order)


@pytest.mark.parametrize("lend", [False, True])
def test_an_idle_lane_takes_the_highest_level_that_waits_on_others(lend: bool) -> None:
    # Lane 2 is idle. Lane 0 has more work, lane 1 the higher level.
    tenants = [{"lane": 0}, {"lane": 1, "priority": 1}, {"lane": 2}]
    made = scheduler(route="pinned", order="fifo", batch="one", lend=lend, lanes=3, tenants=tenants)
    for lane in range(3):
        made.arrive(90 + lane, lane, 0)
    made.arrive_all([(n, 0) for n in range(5)], 1)
    made.arrive(5, 1, 2)
    assert starts(made.finish(3, 500)) == ([(2, (5,))] if lend else [])


# ---- what waits for more, and what rides along -------------------------------------------------


def test_what_would_start_in_place_of_a_higher_level_makes_it_wait_no_longer() -> None:
    # Family 0 waits for more of its own: with nobody else, and beside an equal that starts.
    tenants = [{"priority": 1}, {"family": 1}]
    policy = {"route": "pinned", "order": "fifo", "batch": "timeout", "timeout_ns": 500}
    made = scheduler(**policy, lend=False, families=[LATENCY, ONE], tenants=tenants)
    assert made.arrive(0, 0, 0) == []
    assert starts(made.arrive(1, 1, 100)) == [(0, (0,))]  # not request 1, and at once
    equal = scheduler(**policy, lend=False, families=[LATENCY, ONE], tenants=[{}, {"family": 1}])
    assert equal.arrive(0, 0, 0) == []
    assert starts(equal.arrive(1, 1, 100)) == [(0, (1,))]


@pytest.mark.parametrize("order", ["fifo", "edf", "fair"])
def test_a_launch_does_not_grow_for_a_lower_level(order: str) -> None:
    tenants = [{"priority": 1}, {}]
    made = scheduler(route="pinned", lend=False, order=order, batch="greedy", tenants=tenants)
    made.arrive(99, 1, 0)
    made.arrive_all([(n, 1) for n in range(4)], 1)
    made.arrive(4, 0, 2)
    assert starts(made.finish(1, 1000)) == [(0, (4,))]  # 1000, where four would take 1600
    made.arrive_all([(n, 0) for n in (5, 6, 7)], 1001)
    assert starts(made.finish(2, 2000)) == [(0, (5, 6, 7, 0))]  # in what would be padding


# ---- none starves ------------------------------------------------------------------------------


def saturated(age_ns: int | None, **policy: Any) -> tuple[_native.Scheduler, list[int]]:
    """A lane with two higher requests always waiting; `low` ones arrive early. What started."""
    tenants = [{"priority": 9, "queue_limit": 4096}, {"family": 1}, {"family": 1, "priority": -1}]
    made = scheduler(
        **{**LONELY, "order": "fifo", **policy}, age_ns=age_ns, families=[ONE, ONE], tenants=tenants
    )
    made.arrive_all([(1000 + n, 0) for n in range(100)], 0)
    return made, []


def test_a_lane_that_passes_lower_levels_over_serves_the_oldest_of_them_each_age() -> None:
    made, _ = saturated(age_ns=5000)
    made.arrive(0, 2, 10)
    made.arrive(1, 1, 20)
    order = served(made)
    # Passed over by the launch at 1010: at 6010 the age is reached. Then from 7010 on.
    assert [order.index(low) for low in (0, 1)] == [5, 11]


def test_without_age_a_lower_level_waits_for_all_higher_ones() -> None:
    made, _ = saturated(age_ns=None)
    made.arrive(0, 1, 10)
    assert served(made)[-1] == 0


def test_what_waits_alone_is_not_served_out_of_turn_later() -> None:
    """The age counts from the first launch that passed somebody over, not from an arrival."""
    tenants = [{"priority": 1}, {"family": 1}]
    made = scheduler(**LONELY, order="fifo", age_ns=3000, families=[ONE, ONE], tenants=tenants)
    made.arrive_all([(n, 1) for n in range(20)], 0)
    for launch in range(1, 6):  # only the lower level, for five times as long as the age
        assert starts(made.finish(launch, 1000 * launch)) == [(0, (launch,))]
    made.arrive(100, 0, 5500)
    assert starts(made.finish(6, 6000)) == [(0, (100,))]


@pytest.mark.parametrize("shed", [False, True])
def test_a_lower_level_that_is_late_anyway_does_not_take_the_turn_of_its_age(shed: bool) -> None:
    made, _ = saturated(age_ns=5000, order="edf", shed=shed)
    made.arrive(0, 1, 10, deadline=6500)  # would be answered at 7010
    made.arrive(1, 1, 20, deadline=9000)
    said = [action for launch in range(1, 7) for action in made.finish(launch, 10 + 1000 * launch)]
    assert (starts(said)[-1], drops(said)) == ((0, (1 if shed else 0,)), [])


@settings(max_examples=60, deadline=None)
@given(
    lower=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=12),
    costs=st.lists(st.integers(200, 3000), min_size=2, max_size=4),
    age=st.integers(500, 8_000),
    order=st.sampled_from(["fifo", "edf", "priority", "fair"]),
    batch=st.sampled_from(["one", "greedy", "slack"]),
    data=st.data(),
)
def test_under_higher_levels_that_never_rest_each_request_starts_within_its_bound(
    *, lower: list[tuple[int, int]], costs: list[int], age: int, order: str, batch: str, data: Any
) -> None:
    """Everything arrives while the higher level saturates the lane, for good."""
    families = [{1: cost} for cost in costs]
    tenants = [{"family": 0, "priority": 4}] + [
        {"family": kind % len(costs), "priority": level} for level, kind in lower
    ]
    made = scheduler(
        route="pinned", lend=False, order=order, batch=batch, age_ns=age, families=families,
        tenants=tenants,
    )  # fmt: skip
    longest = max(costs)
    numbers = itertools.count(1000)
    now, launch, running = 0, 0, [next(numbers)]
    made.arrive(running[0], 0, 0)
    arrived: dict[int, int] = {}
    began: dict[int, int] = {}
    arrivals = sorted(data.draw(st.integers(0, 30_000)) for _ in lower)
    bound = (len(lower) + 1) * (age + 2 * longest)
    while len(began) < len(lower):
        for number, when in enumerate(arrivals):
            if number not in arrived and when <= now:
                arrived[number] = now
                made.arrive(number, 1 + number, now)
        made.arrive_all([(next(numbers), 0) for _ in range(2)], now)
        launch += 1
        now += costs[0] if running[0] >= 1000 else costs[lower[running[0]][1] % len(costs)]
        ((_, batch_of),) = starts(made.finish(launch, now))
        running = list(batch_of)
        began |= {number: now for number in running if number < 1000}
        for number, since in arrived.items():
            assert began.get(number, now) - since <= bound


# ---- routes, turns, overload -------------------------------------------------------------------


@pytest.mark.parametrize("route", ["least-wait", "elsa"])
@pytest.mark.parametrize(("level", "lane"), [(1, 0), (0, 1)])
def test_a_route_counts_only_the_work_that_is_ahead(route: str, level: int, lane: int) -> None:
    made = _native.Scheduler(_native.Policy(route=route, batch="one", lend=False))
    for _ in range(2):
        made.add_lane()
    for known in ([0], [1], [0, 1]):  # the last family may go where it likes
        family = made.add_family([1])
        for at in known:
            made.set_latency(family, at, 1, 1000)
    for family, priority in enumerate([0, 1, 0]):
        made.add_tenant(family, priority=priority, lane=0)
    made.arrive_all([(90, 0), (91, 1)], 0)
    made.arrive_all([(n, 0) for n in range(10)], 1)  # wait on lane 0, at level 0
    made.arrive_all([(10, 1), (11, 1)], 1)  # on lane 1, at level 1
    made.arrive(12, 2, 2, priority=level, deadline=50_000)
    assert [made.load(n) for n in range(2)] == [11 + (lane == 0), 3 + (lane == 1)]


def in_turns(turns: list[tuple[int, int]], tenants: list[dict], waiting: list[int]) -> list[int]:
    """The tenants, in the order in which a duty cycle serves them behind a launch of tenant 0."""
    made = scheduler(
        **{**LONELY, "batch": "greedy"}, order="duty", families=[ONE] * len(tenants),
        tenants=[{"family": n, **tenant} for n, tenant in enumerate(tenants)],
    )  # fmt: skip
    made.set_duty(0, turns)
    made.arrive(99, 0, 0)
    made.arrive_all(list(enumerate(waiting)), 1)
    return [waiting[request] for request in served(made)]


def test_a_duty_cycle_keeps_its_turns_whatever_the_levels() -> None:
    turns = [(0, 1), (1, 1), (2, 1)]
    plain: list[dict] = [{}, {}, {}]
    high = [{}, {}, {"priority": 3}]
    every = [0, 0, 1, 1, 2, 2]
    assert in_turns(turns, high, every) == in_turns(turns, plain, every) == [1, 2, 0, 1, 2, 0]


def test_an_idle_turn_goes_to_the_highest_level_and_costs_it_nothing() -> None:
    turns = [(0, 1), (1, 1), (2, 1), (3, 1)]
    waiting = [0, 0, 2, 2, 3, 3]  # tenant 1's turn is idle
    plain: list[dict] = [{}, {}, {}, {}]
    assert in_turns(turns, plain, waiting) == [2, 3, 0, 2, 3, 0]
    high = [{}, {}, {}, {"priority": 1}]
    assert in_turns(turns, high, waiting) == [3, 2, 3, 0, 2, 0]


def test_without_a_turn_the_higher_level_goes_first_in_what_is_left() -> None:
    waiting = [0, 1, 2, 1, 2]
    assert in_turns([(0, 1)], [{}, {}, {"priority": 1}], waiting) == [2, 0, 2, 1, 1]


def overloaded(policy: Policy | str, load: float, level: int) -> SimResult:
    """Two tenants of a family each at `load` of a lane, the second of that level."""
    rate = load * 1000 / 2
    return simulate(
        policy=policy,
        lanes=[LaneSpec()],
        families=[FamilySpec.uniform(1, {1: 1_000_000})] * 2,
        tenants=[
            SimTenant(family=n, slo_ns=50_000_000, priority=n * level,
                       arrivals=SimArrivals(rate_rps=rate))
            for n in range(2)
        ],
        horizon_ns=2_000_000_000,
    )  # fmt: skip


def test_when_something_must_be_shed_the_lower_level_goes_first() -> None:
    low, high = overloaded("space-time", 1.6, 1).tenants
    assert high.met / high.offered > 0.99
    assert 0.1 < low.met / low.offered < 0.4
    both = overloaded("space-time", 1.6, 0).tenants
    assert all(0.5 < tenant.met / tenant.offered < 0.75 for tenant in both)


def test_a_tenant_of_a_lower_level_is_answered_also_where_a_higher_one_takes_all() -> None:
    low, high = overloaded("space-time", 4.0, 1).tenants
    assert high.met > 20 * low.met
    assert low.met >= 2_000_000_000 / 200_000_000 - 2  # once an age, in time
    starved = overloaded(Policy(shed=True, age_ns=None), 4.0, 1).tenants[0]
    assert starved.met < low.met / 2
