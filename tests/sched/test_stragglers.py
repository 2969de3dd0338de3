"""A slow tenant leaves its family and comes back; a slow family is left in peace."""

from __future__ import annotations

import pytest
from hand import LATENCY, drops, scheduler, starts

from spacetime import _native
from spacetime.policy import Policy
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimResult,
    SimSlowdown,
    SimTenant,
    simulate,
)

RULE = {
    "route": "pinned",
    "order": "fifo",
    "batch": "greedy",
    "lend": False,
    "straggler_multiple": 2.0,
    "straggler_recovery": 1.2,
    "straggler_patience": 3,
}


class Rounds:
    """One lane; in every round the given tenants ask together and all is served. A launch takes
    `slow[tenant]` times its true latency for the slowest tenant in it."""

    def __init__(self, tenants: int, slow: dict[int, float], **policy: object) -> None:
        self.made: _native.Scheduler = scheduler(**{**RULE, **policy}, tenants=[{}] * tenants)
        self.slow = slow
        self.now = 0
        self.next = 0
        self.tenant_of: dict[int, int] = {}

    def run(self, *tenants: int) -> list[list[int]]:
        """The tenants of each launch, in order of start."""
        burst = [(self.next + n, tenant) for n, tenant in enumerate(tenants)]
        self.tenant_of.update(burst)
        self.next += len(burst)
        actions = self.made.arrive_all(burst, self.now)
        out: list[list[int]] = []
        while actions:
            (_, launch, _, _, bucket, requests, _) = actions[0]
            out.append(sorted(self.tenant_of[r] for r in requests))
            self.now += int(LATENCY[bucket] * max(self.slow.get(t, 1.0) for t in out[-1]))
            actions = self.made.finish(launch, self.now)
        return out

    def straggling(self) -> list[int]:
        return [t for t in range(4) if self.made.straggling(t)]


def test_leaves_after_patience_launches_clearly_worse_than_the_others() -> None:
    rounds = Rounds(2, {0: 3.0})
    for _ in range(2):
        rounds.run(0)
        rounds.run(1)
        assert rounds.straggling() == []
    rounds.run(0)
    assert rounds.straggling() == [0]
    assert rounds.run(0, 1) == [[0], [1]]


def test_comes_back_after_patience_recovered_launches_of_its_own() -> None:
    rounds = Rounds(2, {0: 3.0})
    for _ in range(3):
        rounds.run(0)
        rounds.run(1)
    rounds.run(0, 1)
    rounds.slow = {}
    for _ in range(2):
        rounds.run(0, 1)
        assert rounds.straggling() == [0]
    rounds.run(0, 1)
    assert rounds.straggling() == []
    assert rounds.run(0, 1) == [[0, 1]]


def test_a_relapse_restarts_the_count() -> None:
    rounds = Rounds(2, {0: 3.0})
    for _ in range(3):
        rounds.run(0)
        rounds.run(1)
    for slowness in [1.0, 1.0, 3.0, 1.0, 1.0]:
        rounds.slow = {0: slowness}
        rounds.run(0)
        assert rounds.straggling() == [0]
    rounds.run(0)
    assert rounds.straggling() == []


@pytest.mark.parametrize("culprit", [0, 1, 2, 3])
def test_is_found_even_if_it_shares_every_launch(culprit: int) -> None:
    # All four look alike from outside; leaving one out at a time tells which one it is. What the
    # correction learns from the fused launches must not hide it.
    rounds = Rounds(4, {culprit: 3.0})
    for _ in range(60):
        rounds.run(0, 1, 2, 3)
        assert len(rounds.straggling()) <= 1  # one trial at a time: three stay fused
    assert rounds.straggling() == [culprit]
    others = [t for t in range(4) if t != culprit]
    assert sorted(rounds.run(0, 1, 2, 3)) == sorted([others, [culprit]])


def test_a_family_that_is_slow_as_a_whole_stays_together() -> None:
    rounds = Rounds(4, dict.fromkeys(range(4), 3.0))
    launches = [len(rounds.run(0, 1, 2, 3)) for _ in range(600)]
    assert rounds.straggling() == []
    assert sum(launches[-300:]) <= 310  # patience doubles, so trials become rare


def test_nobody_leaves_below_the_multiple_or_with_the_rule_off() -> None:
    for slow, policy in [({0: 1.9}, {}), ({0: 9.0}, {"straggler_multiple": 0.0})]:
        rounds = Rounds(2, slow, **policy)
        for _ in range(30):
            rounds.run(0)
            rounds.run(1)
        assert rounds.straggling() == []


def test_a_lonely_tenant_has_no_family_to_leave() -> None:
    rounds = Rounds(1, {0: 9.0})
    for _ in range(30):
        rounds.run(0)
    assert rounds.straggling() == []


def test_the_last_of_a_family_stays_when_the_others_left() -> None:
    rounds = Rounds(2, {0: 3.0, 1: 3.0})
    for _ in range(100):
        rounds.run(0)
        rounds.run(1)
    assert len(rounds.straggling()) <= 1


def test_its_prediction_follows_what_it_does() -> None:
    rounds = Rounds(2, {0: 3.0})
    for _ in range(4):
        rounds.run(0)
        rounds.run(1)
    (start,) = rounds.made.arrive(900, 0, rounds.now)
    assert start[6] == 3000
    assert rounds.made.predicted_ns(0, 0, 1) < 2000  # the family's is not spoilt for long


def test_its_own_launches_teach_the_family_nothing() -> None:
    rounds = Rounds(2, {0: 3.0})
    for _ in range(3):
        rounds.run(0)
        rounds.run(1)
    before = rounds.made.predicted_ns(0, 0, 1)
    for _ in range(10):
        rounds.run(0)
    assert rounds.straggling() == [0]
    assert rounds.made.predicted_ns(0, 0, 1) == before


def moved_to_lane_1(**policy: object) -> tuple[_native.Scheduler, int]:
    """Two lanes, all pinned on lane 0, stragglers on lane 1; tenant 0 strays with 6 waiting."""
    lanes = [{}, {"borrows": False}]
    made = scheduler(**{**RULE, "straggler_lane": 1, **policy}, lanes=lanes, tenants=[{}, {}])
    now, launch = 0, 1
    made.arrive(100, 0, now)
    for tenant in [1, 0, 1, 0]:
        made.arrive(100 + launch, tenant, now)
        now += 3000 if tenant else 1000  # of the launch before: 0 is slow
        made.finish(launch, now)
        launch += 1
    made.arrive_all([(n, n % 2) for n in range(6)], now)
    return made, now


def test_what_it_has_waiting_moves_to_the_lane_for_stragglers() -> None:
    made, now = moved_to_lane_1()
    actions = made.finish(5, now + 3000)
    assert made.straggling(0)
    assert starts(actions) == [(0, (1, 3, 5)), (1, (0, 2, 4))]
    assert starts(made.arrive(10, 0, now + 3001)) == []
    assert starts(made.finish(7, now + 9000)) == [(1, (10,))]


def test_nobody_borrows_from_the_lane_for_stragglers() -> None:
    made, now = moved_to_lane_1(lend=True)
    made.finish(5, now + 3000)
    made.arrive(10, 0, now + 3001)
    assert made.straggling(0)
    assert made.finish(6, now + 4600) == []  # lane 0 is free, lane 1 is busy with 10 waiting


def test_deadlines_and_cancels_reach_what_has_moved() -> None:
    made, now = moved_to_lane_1()
    made.arrive(20, 0, now, deadline=now + 5000)
    made.arrive(21, 0, now)
    made.finish(5, now + 3000)
    made.arrive(22, 0, now + 3000, deadline=now + 4000)
    assert made.cancel(20, now + 3500)[0] is False  # started: 0 2 4 20 fill the bucket
    assert made.cancel(21, now + 3500)[0] is True
    assert drops(made.wake(now + 4000)) == [(22, "deadline")]


def test_a_removed_straggler_leaves_no_trace() -> None:
    made, now = moved_to_lane_1()
    made.finish(5, now + 3000)
    made.arrive(10, 0, now + 3001)
    assert drops(made.remove_tenant(0, now + 3002)) == [(10, "removed")]
    assert not made.straggling(0)
    made.finish(7, now + 9000)
    assert made.waiting == 0


def slow_run(policy: Policy) -> SimResult:
    """Tenant 0 is four times too slow from 0.5 s to 1.5 s of 3 s."""
    slow = SimSlowdown(from_ns=500_000_000, until_ns=1_500_000_000, factor=4.0)
    tenants = [
        SimTenant(
            arrivals=SimArrivals(rate_rps=700),
            slo_ns=20_000_000,
            slowdowns=(slow,) if tenant == 0 else (),
        )
        for tenant in range(4)
    ]
    return simulate(
        policy=policy,
        lanes=[LaneSpec(), LaneSpec()],
        families=[FamilySpec.uniform(2, {1: 1_000_000, 2: 1_200_000, 4: 1_600_000})],
        tenants=tenants,
        horizon_ns=3_000_000_000,
        seed=5,
        timeline=True,
    )


def fused_with_tenant_0(run: SimResult, begin: int, end: int) -> int:
    tenant = {e[2]: e[3] for e in run.timeline if e[1] == "arrive"}
    starts = [e for e in run.timeline if e[1] == "start" and begin <= e[0] < end]
    members = [{tenant[request] for request in e[5]} for e in starts]
    return sum(0 in m and len(m) > 1 for m in members)


def test_a_simulated_slowdown_is_contained_and_forgotten() -> None:
    run = slow_run(Policy.named("space-time"))
    second = 1_000_000_000
    assert fused_with_tenant_0(run, 0, second // 2) > 50
    assert fused_with_tenant_0(run, 7 * second // 10, 3 * second // 2) == 0
    assert fused_with_tenant_0(run, 2 * second, 3 * second) > 50


def test_the_others_are_better_off_with_the_rule() -> None:
    with_rule = slow_run(Policy(straggler_multiple=2.0, straggler_lane=1))
    without = slow_run(Policy())
    for tenant in (1, 2, 3):
        assert with_rule.tenants[tenant].p99_ns < without.tenants[tenant].p99_ns
