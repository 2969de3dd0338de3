"""How many requests a launch takes, who is in it, and how long a free lane waits for more."""

from __future__ import annotations

from collections import Counter

import pytest
from hand import LATENCY, scheduler, serve_out, starts

PINNED = {"route": "pinned", "order": "fifo", "lend": False}


def buckets(actions) -> list[int]:
    return [a[4] for a in actions if a[0] == "start"]


def test_one_never_fuses() -> None:
    made = scheduler(**PINNED, batch="one")
    assert starts(made.arrive_all([(n, 0) for n in range(3)], 0)) == [(0, (0,))]
    assert serve_out(made, 1, 0) == [(0, (1,)), (0, (2,))]


def test_greedy_takes_all_up_to_the_largest_bucket_and_pads() -> None:
    made = scheduler(**PINNED, batch="greedy")
    made.arrive(0, 0, 0)
    made.arrive_all([(n, 0) for n in range(1, 8)], 1)
    first = made.finish(1, 1000)
    assert (starts(first), buckets(first)) == ([(0, (1, 2, 3, 4))], [4])
    second = made.finish(2, 2600)
    assert (starts(second), buckets(second)) == ([(0, (5, 6, 7))], [4])  # 3 samples in bucket 4
    assert second[0][6] == 1600  # predicted


def test_a_burst_shares_a_launch_that_single_arrivals_would_not() -> None:
    burst, single = (scheduler(**PINNED, batch="greedy") for _ in range(2))
    assert starts(burst.arrive_all([(0, 0), (1, 0)], 0)) == [(0, (0, 1))]
    assert starts(single.arrive(0, 0, 0)) == [(0, (0,))]


def test_requests_of_several_samples_fill_a_bucket_together() -> None:
    made = scheduler(**PINNED, batch="greedy")
    made.arrive(9, 0, 0)
    for number, samples in enumerate([1, 2, 1, 3, 2]):
        made.arrive(number, 0, 1, samples=samples)
    assert serve_out(made, 1, 1) == [(0, (0, 1, 2)), (0, (3,)), (0, (4,))]  # 4; 3 + 2 > 4; 2


def test_a_request_larger_than_every_bucket_is_a_launch_of_its_own() -> None:
    made = scheduler(**PINNED, batch="greedy")
    made.arrive(9, 0, 0)
    for number, samples in enumerate([1, 10, 1]):
        made.arrive(number, 0, 1, samples=samples)
    assert starts(made.finish(1, 1000)) == [(0, (0,))]
    large = made.finish(2, 2000)
    assert (starts(large), buckets(large)) == ([(0, (1,))], [10])
    assert large[0][6] == 1600 * 10 // 4
    assert starts(made.finish(3, 6000)) == [(0, (2,))]


class TestTimeout:
    def made(self):
        return scheduler(**PINNED, batch="timeout", timeout_ns=500)

    def test_waits_for_the_oldest_request_and_no_longer(self) -> None:
        made = self.made()
        assert made.arrive(0, 0, 100) == []
        assert made.next_wake == 600
        assert made.arrive(1, 0, 550) == []
        assert made.next_wake == 600
        assert made.wake(599) == []
        assert starts(made.wake(600)) == [(0, (0, 1))]
        assert made.next_wake is None

    def test_goes_at_once_when_the_largest_bucket_is_full(self) -> None:
        made = self.made()
        for number in range(3):
            assert made.arrive(number, 0, number) == []
        assert starts(made.arrive(3, 0, 3)) == [(0, (0, 1, 2, 3))]

    def test_follows_the_next_oldest_when_the_oldest_is_cancelled(self) -> None:
        made = self.made()
        made.arrive(0, 0, 100)
        made.arrive(1, 0, 300)
        assert made.cancel(0, 350)[0]
        assert made.next_wake == 800

    def test_forgets_a_cancelled_request_that_was_not_the_oldest(self) -> None:
        made = self.made()
        made.arrive(0, 0, 100)
        made.arrive(1, 0, 300)
        made.cancel(1, 400)
        assert starts(made.wake(600)) == [(0, (0,))]
        made.finish(1, 1600)
        assert made.arrive(2, 0, 2000) == []
        assert made.next_wake == 2500

    def test_a_busy_lane_needs_no_waking(self) -> None:
        made = self.made()
        made.arrive(0, 0, 0)
        made.wake(500)
        made.arrive(1, 0, 600)
        assert made.next_wake is None
        assert made.finish(1, 1000) == []  # until 1100
        assert made.next_wake == 1100

    def test_another_family_that_is_ready_does_not_wait(self) -> None:
        made = scheduler(
            **PINNED,
            batch="timeout",
            timeout_ns=500,
            families=[LATENCY, {1: 1000}],
            tenants=[{"family": 0}, {"family": 1}],
        )
        made.arrive(0, 0, 0)
        assert starts(made.arrive(1, 1, 10)) == [(0, (1,))]


class TestSlack:
    """L(1) = 1000, L(2) = 1200, L(4) = 1600; the gap is learnt from arrivals 100 apart."""

    def made(self, gap: int = 100, **tenant):
        made = scheduler(**PINNED, batch="slack", tenants=[tenant])
        made.arrive(90, 0, 0)
        made.arrive(91, 0, gap)
        made.cancel(91, gap)
        made.finish(1, 1000)
        assert (made.waiting, made.running) == (0, 0)
        return made

    def test_waits_while_the_next_bucket_saves_more_than_the_wait(self) -> None:
        # One waits, 2 is next: it saves 2 * 1000 - 1200 = 800 and needs one more sample. The mean
        # gap becomes 100 + (1900 - 100) / 8 = 325 < 800: wait, until 800 after the arrival.
        made = self.made()
        assert made.arrive(0, 0, 2000) == []
        assert made.next_wake == 2800
        assert made.wake(2799) == []
        assert starts(made.wake(2800)) == [(0, (0,))]

    def test_goes_at_once_where_arrivals_are_rare(self) -> None:
        made = self.made(gap=900)
        assert starts(made.arrive(0, 0, 2000)) == [(0, (0,))]

    def test_goes_at_once_where_nothing_is_known(self) -> None:
        made = scheduler(**PINNED, batch="slack")
        assert starts(made.arrive(0, 0, 0)) == [(0, (0,))]

    def test_an_arrival_that_fills_a_bucket_is_judged_anew(self) -> None:
        # Two wait, 4 is next: it saves 2 * 1200 - 1600 = 800 and needs two samples, so the mean
        # gap of 325 + (100 - 325) / 8 = 297 allows 594 < 800, and silence allows 400.
        made = self.made()
        made.arrive(0, 0, 2000)
        assert made.arrive(1, 0, 2100) == []
        assert made.next_wake == 2500
        assert made.arrive(2, 0, 2200) == []
        assert starts(made.arrive(3, 0, 2300)) == [(0, (0, 1, 2, 3))]

    def test_goes_when_a_member_could_miss_its_deadline(self) -> None:
        # L(2) = 1200 and a gap of 325: it must go at 3900 - 1200 - 325 = 2375; the silence rule,
        # t + (t - 2000) + 1200 >= 3900, says 2350, which is earlier.
        made = self.made()
        assert made.arrive(0, 0, 2000, deadline=3900) == []
        assert made.next_wake == 2350
        assert starts(made.wake(2350)) == [(0, (0,))]

    def test_goes_at_once_when_a_wait_would_miss_the_deadline(self) -> None:
        made = self.made()
        assert starts(made.arrive(0, 0, 2000, deadline=3500)) == [(0, (0,))]

    def test_the_most_urgent_member_counts_wherever_it_queues(self) -> None:
        made = self.made()
        assert made.arrive(0, 0, 2000, deadline=90_000) == []
        assert starts(made.arrive(1, 0, 2010, deadline=4000)) == [(0, (0, 1))]

    def test_may_wait_again_when_the_urgent_member_is_cancelled(self) -> None:
        made = self.made()
        made.arrive(0, 0, 2000, deadline=90_000)
        made.arrive(1, 0, 2001, deadline=5000)
        assert made.waiting == 2
        made.cancel(1, 2002)
        assert made.next_wake == 2001 + 800

    def test_a_batch_that_does_not_pay_is_not_waited_for(self) -> None:
        made = scheduler(**PINNED, batch="slack", families=[{1: 1000, 2: 2000}])
        made.arrive(0, 0, 0)
        made.arrive(1, 0, 1)
        made.cancel(1, 1)
        made.finish(1, 1000)
        assert starts(made.arrive(2, 0, 1001)) == [(0, (2,))]

    def test_padding_that_does_not_pay_is_left_out(self) -> None:
        # Three wait: bucket 4 takes 3000, bucket 2 and then 1 take 2100.
        made = scheduler(**PINNED, batch="slack", families=[{1: 1000, 2: 1100, 4: 3000}])
        made.arrive(9, 0, 0)
        made.arrive_all([(0, 0), (1, 0), (2, 0)], 1)
        assert starts(made.finish(1, 5000)) == [(0, (0, 1))]


class TestFairnessInsideABatch:
    def behind(self, tenants: list[dict], waiting: list[tuple[int, int]], **policy):
        made = scheduler(
            **{**PINNED, "batch": "greedy", **policy}, families=[{1: 1000, 8: 2000}],
            tenants=tenants,
        )  # fmt: skip
        made.arrive(999, 0, 0)
        made.arrive_all(waiting, 1)
        return made

    def test_a_flood_does_not_crowd_out_a_trickle(self) -> None:
        flood = [(n, 0) for n in range(100)]
        trickle = [(200 + n, 1) for n in range(4)]
        made = self.behind([{}, {}], flood + trickle)
        ((_, batch),) = starts(made.finish(1, 1000))
        assert sum(n >= 200 for n in batch) == 4

    @pytest.mark.parametrize("order", ["fifo", "edf", "priority", "fair"])
    def test_tenants_share_batches_by_weight(self, order: str) -> None:
        weights = [1.0, 2.0, 5.0]
        waiting = [(n, n % 3) for n in range(300)]
        made = self.behind([{"weight": w} for w in weights], waiting, order=order)
        counts = Counter(n % 3 for _, batch in serve_out(made, 1, 1, 2000)[:16] for n in batch)
        assert sum(counts.values()) == 128
        # Under fair, tenant 0 already had the time of eight samples: the launch 999.
        for tenant, weight in enumerate(weights):
            assert abs(counts[tenant] - 128 * weight / 8) <= (8 if order == "fair" else 4)

    def test_each_tenant_sends_its_most_urgent_first(self) -> None:
        made = scheduler(
            route="pinned", order="edf", batch="greedy", lend=False,
            families=[{1: 1000, 4: 2000}], tenants=[{}, {}],
        )  # fmt: skip
        made.arrive(99, 0, 0)
        for number, (tenant, deadline) in enumerate(
            [(0, 90_000), (0, 80_000), (0, 70_000), (1, 99_000), (1, 98_000)]
        ):
            made.arrive(number, tenant, 1, deadline=deadline)
        ((_, batch),) = starts(made.finish(1, 1000))
        assert set(batch) == {2, 1, 3, 4}
        assert batch.index(2) < batch.index(1)
        assert batch.index(4) < batch.index(3)

    def test_a_more_urgent_priority_goes_before_fairness(self) -> None:
        waiting = [(n, 0) for n in range(8)] + [(100 + n, 1) for n in range(8)]
        made = self.behind([{}, {"priority": 1}], waiting, order="priority")
        ((_, batch),) = starts(made.finish(1, 1000))
        assert all(n >= 100 for n in batch)
