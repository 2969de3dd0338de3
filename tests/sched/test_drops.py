"""Every way a request leaves without an answer, and that it leaves exactly then."""

from __future__ import annotations

from hand import LATENCY, drops, scheduler, serve_out, starts

from spacetime.policy import Policy
from spacetime.simulation.simulator import FamilySpec, LaneSpec, SimArrivals, SimTenant, simulate

PINNED = {"route": "pinned", "order": "fifo", "batch": "one", "lend": False}


class TestDeadline:
    def test_drops_at_the_deadline_while_the_lane_is_busy(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        made.arrive(1, 0, 10, deadline=500)
        assert made.next_wake == 500
        assert made.wake(499) == []
        assert drops(made.wake(500)) == [(1, "deadline")]
        assert (made.next_wake, made.waiting) == (None, 0)

    def test_a_finish_at_the_deadline_is_too_late(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        made.arrive(1, 0, 10, deadline=1000)
        made.arrive(2, 0, 20, deadline=1001)
        actions = made.finish(1, 1000)
        assert drops(actions) == [(1, "deadline")]
        assert starts(actions) == [(0, (2,))]

    def test_drops_in_order_of_deadline_then_arrival(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(9, 0, 0)
        for number, deadline in enumerate([300, 200, 300, 100, 400]):
            made.arrive(number, 0, 1, deadline=deadline)
        assert [n for n, _ in drops(made.wake(300))] == [3, 1, 0, 2]
        assert made.next_wake == 400

    def test_a_request_already_past_its_deadline_never_queues(self) -> None:
        made = scheduler(**PINNED)
        assert drops(made.arrive(0, 0, 100, deadline=100)) == [(0, "deadline")]
        assert made.running == 0

    def test_a_started_request_is_not_dropped(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0, deadline=500)
        assert made.next_wake is None
        assert made.wake(600) == []

    def test_every_event_expires_first(self) -> None:
        for event in (
            lambda made: made.arrive(2, 0, 600),
            lambda made: made.cancel(0, 600)[1],
            lambda made: made.finish(77, 600),
            lambda made: made.remove_tenant(7, 600),
            lambda made: made.drop_all(600),
        ):
            made = scheduler(**PINNED)
            made.arrive(0, 0, 0)
            made.arrive(1, 0, 0, deadline=500)
            assert drops(event(made))[0] == (1, "deadline")


class TestShed:
    """L(1) = 1000, L(2) = 1200, L(4) = 1600."""

    def made(self, **policy):
        made = scheduler(**{**PINNED, "batch": "greedy", "shed": True, **policy}, tenants=[{}, {}])
        made.arrive(99, 0, 0)
        return made

    def test_drops_at_its_turn_what_the_launch_would_answer_too_late(self) -> None:
        made = self.made()
        for number, deadline in enumerate([2599, 2600, None, 9000]):
            made.arrive(number, number % 2, 1, deadline=deadline)
        actions = made.finish(1, 1000)  # four wait: the launch would end at 2600
        assert drops(actions) == [(0, "deadline")]
        assert starts(actions) == [(0, (1, 2, 3))]

    def test_without_it_the_late_one_is_served(self) -> None:
        made = self.made(shed=False)
        made.arrive_all([(0, 0), (1, 1)], 1, deadline=1500)
        assert starts(made.finish(1, 1000)) == [(0, (0, 1))]

    def test_the_last_one_is_served_late_rather_than_not_at_all(self) -> None:
        made = self.made()
        made.arrive_all([(0, 0), (1, 1), (2, 0)], 1, deadline=1500)
        actions = made.finish(1, 1000)
        assert drops(actions) == [(0, "deadline"), (1, "deadline")]
        assert starts(actions) == [(0, (2,))]

    def test_keeps_a_quarter_of_the_wait_in_reserve_where_others_fill_the_launch(self) -> None:
        # Answered at 2933 it would start at 1333, 1332 after it came; three quarters end at 1000.
        for deadline, others, dropped in [(2931, 4, [0]), (2933, 4, []), (2931, 3, [])]:
            made = self.made()
            made.arrive(0, 0, 1, deadline=deadline)
            made.arrive_all([(n + 1, 1) for n in range(others)], 1)
            actions = made.finish(1, 1000)
            assert [number for number, _ in drops(actions)] == dropped
            assert len(starts(actions)[0][1]) == 4

    def test_a_duty_turn_sheds_its_own_tenant_only(self) -> None:
        made = self.made(order="duty")
        made.set_duty(0, [(1, 4)])
        made.arrive_all([(0, 1), (1, 0), (2, 1)], 1, deadline=1500)
        actions = made.finish(1, 1000)
        assert drops(actions) == [(0, "deadline")]
        assert starts(actions) == [(0, (2,))]

    def test_keeps_the_goodput_of_an_overloaded_lane(self) -> None:
        def goodput(shed: bool) -> float:
            tenant = SimTenant(arrivals=SimArrivals(rate_rps=5e6), slo_ns=20_000)
            run = simulate(
                policy=Policy(shed=shed),
                lanes=[LaneSpec()],
                families=[FamilySpec.uniform(1, LATENCY)],
                tenants=[tenant, tenant],
                requests=20_000,
            )
            return sum(t.met for t in run.tenants) / run.end_ns * 1e9

        capacity = 4 / 1.6e-6
        assert goodput(True) > 0.9 * capacity
        assert goodput(False) < 0.5 * capacity


class TestQueueLimit:
    def test_one_more_is_refused_and_the_limit_counts_waiting_requests_only(self) -> None:
        made = scheduler(**PINNED, tenants=[{"queue_limit": 2}])
        assert starts(made.arrive(0, 0, 0)) == [(0, (0,))]
        assert made.arrive(1, 0, 0) == []
        assert made.arrive(2, 0, 0) == []
        assert drops(made.arrive(3, 0, 0)) == [(3, "queue-full")]
        made.finish(1, 1000)
        assert made.arrive(4, 0, 1000) == []

    def test_is_per_tenant(self) -> None:
        made = scheduler(**PINNED, tenants=[{"queue_limit": 1}, {"queue_limit": 1}])
        refused = drops(made.arrive_all([(0, 0), (1, 0), (2, 1), (3, 1)], 0))
        assert refused == [(1, "queue-full"), (3, "queue-full")]

    def test_counts_over_all_lanes(self) -> None:
        made = scheduler(lanes=2, route="least-wait", batch="one", tenants=[{"queue_limit": 2}])
        made.arrive(8, 0, 0)
        made.arrive(9, 0, 0)
        refused = drops(made.arrive_all([(0, 0), (1, 0), (2, 0)], 1))
        assert refused == [(2, "queue-full")]


class TestCancel:
    def test_a_waiting_request_leaves_at_once(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        made.arrive(1, 0, 0, deadline=500)
        made.arrive(2, 0, 0)
        assert made.cancel(1, 10) == (True, [("drop", 1, 0, "cancelled")])
        assert made.next_wake is None
        assert serve_out(made, 1, 10) == [(0, (2,))]

    def test_a_started_or_unknown_request_does_not(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        assert made.cancel(0, 10) == (False, [])
        assert made.cancel(77, 10) == (False, [])
        made.finish(1, 1000)
        assert made.cancel(0, 1001) == (False, [])

    def test_an_id_may_be_used_again(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        for now in range(1, 50):
            made.arrive(1, 0, now)
            assert made.cancel(1, now)[0]
        assert made.waiting == 0


class TestRemove:
    def test_drops_what_waits_and_lets_the_running_launch_finish(self) -> None:
        made = scheduler(**PINNED, tenants=[{}, {}])
        made.arrive_all([(0, 0), (1, 1), (2, 0), (3, 0)], 0)
        assert drops(made.remove_tenant(0, 10)) == [(2, "removed"), (3, "removed")]
        assert starts(made.finish(1, 1000)) == [(0, (1,))]

    def test_a_removed_or_unknown_tenant_is_refused(self) -> None:
        made = scheduler(**PINNED, tenants=[{}, {}])
        made.remove_tenant(0, 0)
        assert drops(made.arrive(0, 0, 1)) == [(0, "removed")]
        assert drops(made.arrive(1, 7, 1)) == [(1, "removed")]
        assert made.remove_tenant(0, 2) == []
        assert made.remove_tenant(7, 2) == []
        assert starts(made.arrive(2, 1, 3)) == [(0, (2,))]

    def test_a_tenant_can_join_while_others_run(self) -> None:
        made = scheduler(**PINNED)
        made.arrive(0, 0, 0)
        new = made.add_tenant(0, lane=0)
        made.arrive(1, new, 1)
        assert serve_out(made, 1, 1) == [(0, (1,))]


class TestDropAll:
    def test_empties_every_queue_oldest_first_and_starts_nothing_any_more(self) -> None:
        made = scheduler(**{**PINNED, "route": "least-wait"}, lanes=2, tenants=[{}, {}])
        made.arrive_all([(n, n % 2) for n in range(8)], 0)
        assert drops(made.drop_all(10)) == [(n, "closed") for n in range(2, 8)]
        assert (made.waiting, made.running, made.next_wake) == (0, 2, None)
        assert drops(made.arrive(9, 0, 20)) == [(9, "closed")]
        assert made.finish(1, 1000) == []
        assert made.finish(2, 1000) == []
        assert made.running == 0

    def test_forgets_what_it_was_waiting_for(self) -> None:
        made = scheduler(route="pinned", order="fifo", batch="timeout", lend=False)
        made.arrive(0, 0, 0)
        assert made.next_wake is not None
        made.drop_all(1)
        assert made.next_wake is None


def test_an_unknown_launch_is_ignored() -> None:
    made = scheduler(**PINNED)
    made.arrive(0, 0, 0)
    assert made.finish(0, 1) == []
    assert made.finish(9, 1) == []
    made.finish(1, 1000)
    assert made.finish(1, 1001) == []
    assert made.running == 0
