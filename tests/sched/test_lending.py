"""Idle lanes run others' work; the owner has its lane back within one launch."""

from __future__ import annotations

from hand import LATENCY, scheduler, starts
from hypothesis import given
from hypothesis import strategies as st

LEND = {"route": "pinned", "order": "fifo", "batch": "one", "lend": True}


def test_an_idle_lane_takes_one_launch_of_the_busy_lane() -> None:
    made = scheduler(**LEND, lanes=2)
    assert starts(made.arrive(0, 0, 0)) == [(0, (0,))]
    assert starts(made.arrive(1, 0, 10)) == [(1, (1,))]
    made.arrive_all([(2, 0), (3, 0), (4, 0)], 20)
    assert starts(made.finish(2, 500)) == [(1, (2,))]
    assert starts(made.finish(1, 1000)) == [(0, (3,))]


def test_the_owners_own_queue_comes_first() -> None:
    made = scheduler(**LEND, lanes=2, tenants=[{"lane": 0}, {"lane": 1}])
    made.arrive_all([(n, 0) for n in range(6)], 0)  # 0 on lane 0, 1 borrowed by lane 1
    made.arrive(10, 1, 5)
    assert starts(made.finish(2, 1000)) == [(1, (10,))]
    assert starts(made.finish(3, 2000)) == [(1, (2,))]


def test_the_lane_with_the_most_waiting_work_is_helped_first() -> None:
    tenants = [{"lane": 0}, {"lane": 1}, {"lane": 2}]
    made = scheduler(**LEND, lanes=3, tenants=tenants)
    made.arrive_all([(0, 0), (10, 1), (20, 2)], 0)
    made.arrive_all([(1, 0), (11, 1), (12, 1)], 1)
    assert starts(made.finish(3, 100)) == [(2, (11,))]
    assert starts(made.finish(4, 200)) == [(2, (1,))]  # one each: the lower lane


def test_a_lane_that_does_not_borrow_stays_idle() -> None:
    made = scheduler(**LEND, lanes=[{}, {"borrows": False}])
    made.arrive(0, 0, 0)
    assert made.arrive(1, 0, 10) == []


def test_only_work_the_lane_has_latencies_for() -> None:
    made = scheduler(**LEND, lanes=2, families=[], tenants=[])
    known, unknown = made.add_family([1]), made.add_family([1])
    made.set_latency(known, 0, 1, 1000)
    made.set_latency(known, 1, 1, 1000)
    made.set_latency(unknown, 0, 1, 1000)
    made.add_tenant(unknown, lane=0)
    made.add_tenant(known, lane=0)
    made.arrive(0, 0, 0)
    assert made.arrive(1, 0, 1) == []
    assert starts(made.arrive(2, 1, 2)) == [(1, (2,))]


def test_a_borrowed_launch_is_not_longer_than_the_limit() -> None:
    families = [{1: 5000}, {1: 1000}]
    tenants = [{"family": 0}, {"family": 1}]
    made = scheduler(**LEND, max_borrow_ns=4999, lanes=2, families=families, tenants=tenants)
    made.arrive(0, 0, 0)
    assert made.arrive(1, 0, 1) == []
    assert starts(made.arrive(2, 1, 2)) == [(1, (2,))]


def test_a_borrower_applies_the_batch_rule_too() -> None:
    made = scheduler(
        route="pinned", order="fifo", batch="timeout", timeout_ns=500, lend=True, lanes=2
    )
    made.arrive_all([(n, 0) for n in range(4)], 0)
    assert made.arrive(4, 0, 100) == []
    assert made.next_wake == 600
    assert starts(made.wake(600)) == [(1, (4,))]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    arrivals=st.lists(st.integers(0, 400), min_size=1, max_size=15),
)
def test_the_floor_returns_within_one_launch(lengths: list[int], arrivals: list[int]) -> None:
    """Whatever lane 0 sheds on lane 1, the owner of lane 1 waits for one borrowed launch at most:
    its k-th request starts no later than on a lane of its own, plus the longest launch."""
    longest = max(lengths) * 100
    own = 1000
    families = [{1: length * 100} for length in lengths] + [{1: own}]
    tenants = [{"family": n} for n in range(len(lengths))]
    made = scheduler(**LEND, lanes=2, families=families, tenants=tenants)
    owner = made.add_tenant(len(lengths), lane=1)
    asked = sorted(a * 100 for a in arrivals)
    ends: dict[int, int] = {}
    started: dict[int, int] = {}

    def note(actions, now: int) -> None:
        for action in actions:
            ends[action[1]] = now + action[6]
            started.update(dict.fromkeys(action[5], now))

    note(made.arrive_all([(n, n) for n in range(len(lengths))], 0), 0)
    waiting = list(enumerate(asked))
    while waiting or ends:
        launch = min(ends, key=lambda key: ends[key], default=0)
        if waiting and (not ends or waiting[0][1] < ends[launch]):
            number, now = waiting.pop(0)
            note(made.arrive(1000 + number, owner, now), now)
        else:
            now = ends.pop(launch)
            note(made.finish(launch, now), now)
    free = 0
    for number, at in enumerate(asked):
        alone = max(free, at)
        free = alone + own
        assert started[1000 + number] <= alone + longest


def test_a_lane_that_waits_for_its_own_batch_does_not_borrow() -> None:
    made = scheduler(
        route="pinned", order="fifo", batch="timeout", timeout_ns=500, lend=True, lanes=2,
        tenants=[{"lane": 0}, {"lane": 1}],
    )  # fmt: skip
    made.arrive_all([(n, 0) for n in range(4)], 0)
    made.arrive(10, 1, 100)
    assert made.arrive_all([(n, 0) for n in range(4, 8)], 200) == []
    assert starts(made.wake(600)) == [(1, (10,))]


def test_without_lending_nothing_is_borrowed() -> None:
    made = scheduler(**{**LEND, "lend": False}, lanes=2, families=[LATENCY])
    made.arrive(0, 0, 0)
    assert made.arrive(1, 0, 1) == []
