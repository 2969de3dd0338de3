"""Which family a free lane serves next."""

from __future__ import annotations

import itertools

import pytest
from hand import scheduler, serve_out, starts
from hypothesis import given
from hypothesis import strategies as st

ONE = {1: 1000}
PINNED = {"route": "pinned", "batch": "one", "lend": False}


def requests_of(served: list[tuple[int, tuple[int, ...]]]) -> list[int]:
    return [request for _, batch in served for request in batch]


def served_order(order: str, tenants: list[dict], waiting: list[dict]) -> list[int]:
    """Queues `waiting` behind a running request 99, then lets the lane serve them all."""
    made = scheduler(**PINNED, order=order, families=[ONE] * len(tenants), tenants=tenants)
    made.arrive(99, 0, 0)
    for number, request in enumerate(waiting):
        made.arrive(number, now=1 + number, **request)
    return requests_of(serve_out(made, 1, 10))


TWO = [{"family": 0}, {"family": 1}]


def test_fifo_is_by_arrival_whatever_the_deadline() -> None:
    waiting = [
        {"tenant": 1, "deadline": 90_000},
        {"tenant": 0, "deadline": 80_000},
        {"tenant": 1, "deadline": 70_000},
    ]
    assert served_order("fifo", TWO, waiting) == [0, 1, 2]


def test_edf_is_by_deadline_then_arrival_and_no_deadline_is_last() -> None:
    waiting = [
        {"tenant": 0},
        {"tenant": 1, "deadline": 90_000},
        {"tenant": 0, "deadline": 80_000},
        {"tenant": 1, "deadline": 80_000},
    ]
    assert served_order("edf", TWO, waiting) == [2, 3, 1, 0]


def test_order_priority_is_edf_within_a_level() -> None:
    tenants = [{"family": 0, "priority": 1}, {"family": 1}]
    waiting = [
        {"tenant": 1, "deadline": 80_000},
        {"tenant": 0, "deadline": 90_000},
        {"tenant": 1, "deadline": 70_000, "priority": 1},
        {"tenant": 1, "deadline": 99_000, "priority": 2},
        {"tenant": 0, "priority": -9},
    ]
    for order in ("priority", "edf"):
        assert served_order(order, tenants, waiting) == [3, 2, 1, 0, 4]


def test_under_priority_the_less_urgent_ride_only_in_padding() -> None:
    # Four best-effort requests wait and one that matters: its launch takes 1000, not 1600.
    tenants = [{"priority": 1}, {}]
    made = scheduler(route="pinned", lend=False, order="priority", batch="greedy", tenants=tenants)
    assert starts(made.arrive(0, 1, 0)) == [(0, (0,))]
    made.arrive_all([(n, 1) for n in range(1, 5)], 10)
    made.arrive(5, 0, 20)
    assert starts(made.finish(1, 1000)) == [(0, (5,))]
    # Three that matter fill a bucket of 4 all but one: best effort rides there, in order.
    made.arrive_all([(n, 0) for n in (6, 7, 8)], 1500)
    assert starts(made.finish(2, 2000)) == [(0, (6, 7, 8, 1))]
    assert starts(made.finish(3, 3600)) == [(0, (2, 3, 4))]


def test_a_request_that_matters_is_not_shed_for_what_would_not_ride_with_it() -> None:
    tenants = [{"priority": 1}, {}]
    made = scheduler(
        route="pinned", lend=False, order="priority", batch="greedy", shed=True, tenants=tenants
    )
    made.arrive_all([(n, 1) for n in range(5)], 0)
    made.arrive(5, 0, 10, deadline=2650)  # alone it takes 1000, with three others 1600
    assert starts(made.finish(1, 1600)) == [(0, (5,))]


def test_fair_serves_by_weight() -> None:
    tenants = [{"family": 0, "weight": 3.0}, {"family": 1, "weight": 1.0}]
    made = scheduler(**PINNED, order="fair", families=[ONE] * 2, tenants=tenants)
    made.arrive_all([(n, n % 2) for n in range(80)], 0)
    # Tenant 0 has the even numbers. It started first and gets three launches in four.
    first = [0, *requests_of(serve_out(made, 1, 0))][:40]
    assert sum(n % 2 == 0 for n in first) == 30
    for window in range(0, 36):
        assert 2 <= sum(n % 2 == 0 for n in first[window : window + 4]) <= 4


@pytest.mark.parametrize(("predicted", "actual"), [(3000, 3000), (1000, 10_000)])
def test_fair_counts_the_time_taken_not_launches(predicted: int, actual: int) -> None:
    families = [ONE, {1: predicted}]
    made = scheduler(**PINNED, order="fair", families=families, tenants=TWO)
    made.arrive_all([(n, n % 2) for n in range(200)], 0)
    now, time = 0, [0, 0]
    batch: tuple[int, ...] = (0,)
    for launch in range(1, 60):
        family = batch[0] % 2
        took = actual if family else 1000
        now += took
        time[family] += took
        batch = starts(made.finish(launch, now))[0][1]
    assert abs(time[0] - time[1]) <= actual


def test_fair_gives_no_credit_for_idling() -> None:
    made = scheduler(**PINNED, order="fair", families=[ONE] * 2, tenants=TWO)
    made.arrive_all([(n, 0) for n in range(100)], 0)
    now = 0
    for launch in range(1, 51):  # 50 ms in which tenant 1 asks for nothing
        now += 1000
        made.finish(launch, now)
    made.arrive_all([(100 + n, 1) for n in range(100)], now)
    next_ones = requests_of(serve_out(made, 51, now))[:20]
    assert 9 <= sum(n >= 100 for n in next_ones) <= 11


@given(
    weights=st.lists(st.sampled_from([0.1, 1.0, 2.0, 10.0]), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
)
def test_fair_starves_nobody(weights: list[float], seed: int) -> None:
    """A waiting tenant is served at the latest when everyone had what its weight grants them."""
    count = len(weights)
    tenants = [{"family": n, "weight": w} for n, w in enumerate(weights)]
    made = scheduler(**PINNED, order="fair", families=[ONE] * count, tenants=tenants)
    numbers = itertools.count(seed)
    tenant_of: dict[int, int] = {}

    def ask(tenant: int, now: int) -> list[int]:
        number = next(numbers)
        tenant_of[number] = tenant
        return requests_of(starts(made.arrive(number, tenant, now)))

    last = ask(0, 0)
    for tenant in range(count):
        ask(tenant, 0)
        ask(tenant, 0)
    worst = sum(2 + w / min(weights) for w in weights)
    waited, now = [0] * count, 0
    for launch in range(1, 150):
        served = tenant_of[last[0]]
        waited = [0 if t == served else n + 1 for t, n in enumerate(waited)]
        assert max(waited) <= worst
        now += 1000
        last = requests_of(starts(made.finish(launch, now)))
        ask(tenant_of[last[0]], now)  # always two or three waiting of everybody


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6))
def test_edf_meets_every_deadline_that_any_order_meets(jobs: list[tuple[int, int]]) -> None:
    """Released together on one lane, no batching: EDF against all permutations."""
    units = 1000

    def all_met(order: tuple[tuple[int, int], ...]) -> bool:
        finished = list(itertools.accumulate(length for length, _ in order))
        return all(f <= due for f, (_, due) in zip(finished, order, strict=True))

    feasible = any(all_met(order) for order in itertools.permutations(jobs))
    made = scheduler(
        **PINNED,
        order="edf",
        families=[{1: length * units} for length, _ in jobs],
        tenants=[{"family": n} for n in range(len(jobs))],
    )
    # Behind a blocking launch, so that all are released before the first choice.
    made.add_tenant(made.add_family([1]), lane=0)
    made.arrive(99, len(jobs), 0)
    for number, (_, due) in enumerate(jobs):
        made.arrive(number, number, 0, deadline=due * units + 1)
    met, now, actions, launch = 0, 0, made.finish(1, 0), 2
    while started := starts(actions):
        length, due = jobs[started[0][1][0]]
        now += length * units
        met += now <= due * units
        actions = made.finish(launch, now)
        launch += 1
    if feasible:
        assert met == len(jobs)


def test_edf_takes_the_most_urgent_first_inside_a_family_too() -> None:
    made = scheduler(**PINNED, order="edf", families=[ONE], tenants=[{}, {}])
    made.arrive(0, 0, 0)
    for number, (tenant, deadline) in enumerate([(0, 90), (0, 40), (0, 30), (1, 95), (0, 50)], 1):
        made.arrive(number, tenant, 1, deadline=deadline * 1000)
    assert requests_of(serve_out(made, 1, 1)) == [3, 2, 5, 1, 4]


def test_duty_skips_a_turn_without_requests_and_serves_the_others_after_the_cycle() -> None:
    tenants = [{"family": 0}, {"family": 1}, {"family": 0}]
    made = scheduler(
        route="pinned",
        order="duty",
        batch="greedy",
        lend=False,
        families=[{1: 1000, 4: 1600}] * 2,
        tenants=tenants,
    )
    made.set_duty(0, [(0, 2), (1, 4)])
    made.arrive(0, 0, 0)
    made.arrive_all([(1, 2), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 2)], 10)
    assert serve_out(made, 1, 10) == [
        (0, (5, 6)),  # tenant 1's turn: both, up to 4
        (0, (1, 7)),  # tenant 2 has no turn of its own: served after the named turns
        (0, (2, 3)),  # tenant 0's turn: two samples
        (0, (4,)),  # nobody else waits
    ]


@pytest.mark.parametrize("order", ["fifo", "edf", "priority", "fair", "duty"])
def test_every_order_serves_everything_once(order: str) -> None:
    tenants = [{"family": n % 2} for n in range(4)]
    made = scheduler(**PINNED, order=order, families=[ONE] * 2, tenants=tenants)
    if order == "duty":
        made.set_duty(0, [(1, 1), (3, 2)])
    first = starts(made.arrive_all([(n, n % 4) for n in range(40)], 0))
    assert sorted(requests_of([*first, *serve_out(made, 1, 0)])) == list(range(40))
    assert made.waiting == 0
