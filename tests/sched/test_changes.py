"""Changes to a scheduler that runs: routes, batches, lanes that come and go."""

from __future__ import annotations

import pytest
from hand import LATENCY, drops, scheduler, starts

from spacetime import _native

PINNED = {"route": "pinned", "order": "fifo", "batch": "one", "lend": False}
GREEDY = {"route": "weighted", "order": "fifo", "batch": "greedy", "lend": False}


def busy(lanes: int = 2, **policy) -> _native.Scheduler:
    """Tenant 0 on lane 0: request 0 runs as launch 1, requests 1 and 2 wait."""
    made = scheduler(**{**PINNED, **policy}, lanes=lanes)
    for request in range(3):
        made.arrive(request, 0, 0, deadline=5000)
    return made


def test_arrivals_follow_the_new_routes_and_what_waits_keeps_its_lane() -> None:
    made = busy()
    assert made.set_routes(0, 10, lane=1) == []
    assert starts(made.arrive(3, 0, 10)) == [(1, (3,))]
    assert [made.load(0), made.load(1)] == [3, 1]
    assert starts(made.finish(1, 1000)) == [(0, (1,))]
    assert starts(made.finish(3, 2000)) == [(0, (2,))]
    assert starts(made.finish(4, 3000)) == []
    assert made.load(0) == 0


def test_what_waits_on_the_old_lane_still_leaves_at_its_deadline() -> None:
    made = busy()
    made.set_routes(0, 10, lane=1)
    assert made.next_wake == 5000
    assert drops(made.wake(5000)) == [(1, "deadline"), (2, "deadline")]


def test_moving_takes_what_waits_along_in_its_order() -> None:
    made = busy()
    assert starts(made.set_routes(0, 10, lane=1, move=True)) == [(1, (1,))]
    assert [made.load(0), made.load(1)] == [1, 2]
    assert starts(made.finish(2, 1010)) == [(1, (2,))]


def test_moving_drops_first_what_is_due_at_that_instant() -> None:
    actions = busy().set_routes(0, 5000, lane=1, move=True)
    assert drops(actions) == [(1, "deadline"), (2, "deadline")]
    assert starts(actions) == []


def test_weights_start_afresh() -> None:
    made = scheduler(**GREEDY, lanes=2, tenants=[{"lane_weights": [1.0, 0.0]}])
    made.arrive(0, 0, 0)
    made.set_routes(0, 0, lane_weights=[1.0, 3.0])
    for request in range(1, 9):
        made.arrive(request, 0, 0)
    assert [made.load(0), made.load(1)] == [3, 6]  # a quarter of eight, and request 0


def test_a_lane_added_under_load_can_be_routed_to_once_it_has_latencies() -> None:
    made = busy(lanes=1)
    lane = made.add_lane(units=2)
    for bucket, latency in LATENCY.items():
        made.set_latency(0, lane, bucket, latency // 2)
    made.set_routes(0, 10, lane=lane)
    ((_, _, on, _, _, requests, predicted),) = made.arrive(3, 0, 10)
    assert (on, requests, predicted) == (lane, (3,), 500)


def test_a_smaller_batch_binds_the_next_launch_and_none_lifts_it() -> None:
    made = scheduler(**GREEDY)
    made.arrive_all([(n, 0) for n in range(12)], 0)
    assert made.set_batch(0, 0, 2, 10) == []
    assert starts(made.finish(1, 1600)) == [(0, (4, 5))]
    made.set_batch(0, 0, None, 1700)
    assert starts(made.finish(2, 2800)) == [(0, (6, 7, 8, 9))]


def test_a_larger_batch_starts_nothing_early_and_a_smaller_one_starts_what_was_held() -> None:
    made = scheduler(route="pinned", order="fifo", batch="timeout", timeout_ns=9000, lend=False)
    made.arrive_all([(0, 0), (1, 0)], 0)
    assert made.next_wake == 9000
    assert starts(made.set_batch(0, 0, 2, 100)) == [(0, (0, 1))]


def test_batch_zero_sends_new_work_elsewhere_and_drains_the_lane() -> None:
    made = scheduler(route="least-wait", order="fifo", batch="one", lend=True, lanes=2)
    for request in range(4):
        made.arrive(request, 0, 0)
    made.set_batch(0, 0, 0, 10)
    for request in range(4, 6):
        made.arrive(request, 0, 10)
    assert [made.load(0), made.load(1)] == [2, 4]
    assert starts(made.finish(1, 1000)) == [(0, (2,))]  # its own: it was there before
    assert starts(made.finish(3, 2000)) == []  # lane 0 takes nothing from lane 1 any more
    with pytest.raises(ValueError, match="family 0 has no other to run on"):
        made.set_batch(0, 1, 0, 2000)


def test_a_drained_lane_closes_and_its_number_is_gone() -> None:
    made = busy()
    with pytest.raises(ValueError, match="not drained"):
        made.close_lane(0)
    made.set_routes(0, 10, lane=1, move=True)
    made.finish(1, 1000)
    made.close_lane(0)
    for use in (
        lambda: made.close_lane(0),
        lambda: made.set_latency(0, 0, 1, 1000),
        lambda: made.set_routes(0, 1000, lane=0),
        lambda: made.add_tenant(0, lane=0),
    ):
        with pytest.raises(ValueError, match="lane 0 is closed"):
            use()
    assert starts(made.finish(2, 1010)) == [(1, (2,))]


def test_a_lane_closes_while_it_runs_what_it_was_lent() -> None:
    made = scheduler(**{**PINNED, "lend": True}, lanes=2, tenants=[{"lane": 1}])
    for request in range(4):
        made.arrive(request, 0, 0)
    assert [made.load(0), made.load(1)] == [1, 3]  # lane 0 borrowed request 1
    made.close_lane(0)
    assert starts(made.finish(2, 1000)) == []  # and borrows no more
    assert starts(made.finish(1, 1000)) == [(1, (2,))]
    assert starts(made.finish(3, 2000)) == [(1, (3,))]


def test_a_closed_lane_is_chosen_by_no_route_and_borrows_nothing() -> None:
    for route in ("least-wait", "elsa"):
        made = scheduler(route=route, order="fifo", batch="one", lend=True, lanes=3)
        made.close_lane(0)
        for request in range(6):
            made.arrive(request, 0, 0)
        assert [made.load(lane) for lane in range(3)] == [0, 3, 3]


def test_a_lane_that_routes_lead_to_stays_open() -> None:
    with pytest.raises(ValueError, match="tenant 0 is still routed there"):
        scheduler(**PINNED).close_lane(0)
    made = scheduler(**GREEDY, lanes=2, tenants=[{"lane": 0, "lane_weights": [0.0, 1.0]}])
    with pytest.raises(ValueError, match="tenant 0 is still routed there"):
        made.close_lane(1)
    made.close_lane(0)  # without a weight it is only where the tenant would be pinned


@pytest.mark.parametrize(
    ("lane", "weights"), [(None, []), (7, []), (None, [0.0, 0.0]), (0, [-1.0])]
)
def test_routes_that_are_none_are_refused_and_change_nothing(lane, weights) -> None:
    made = scheduler(**GREEDY, tenants=[{}])
    with pytest.raises(ValueError, match=r"TenantSpec\.lane"):
        made.set_routes(0, 0, lane=lane, lane_weights=weights)
    assert starts(made.arrive(0, 0, 0)) == [(0, (0,))]


def test_routes_of_an_unknown_or_removed_tenant_are_refused() -> None:
    made = scheduler(**PINNED)
    with pytest.raises(ValueError, match=r"set_routes\.tenant: unknown id 4"):
        made.set_routes(4, 0, lane=0)
    made.remove_tenant(0, 0)
    with pytest.raises(ValueError, match="was removed"):
        made.set_routes(0, 0, lane=0)


def test_a_batch_that_is_no_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or a bucket"):
        scheduler(**PINNED).set_batch(0, 0, 3, 0)
