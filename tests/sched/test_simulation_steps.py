"""A simulation that stops and is changed under way: exact timelines, nothing lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime import _native
from spacetime.policy import Policy
from spacetime.reports.recording import Recording, replay
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimTenant,
    native_spec,
    simulate,
)
from spacetime.units import SECOND

PLAIN = Policy(route="weighted", order="fifo", batch="greedy", lend=False)
BATCHED = {1: 1000, 2: 1200, 4: 1600}


def stepped(*, lanes: int = 2, tenants: list[SimTenant], **options) -> _native.Simulation:
    return _native.Simulation(
        native_spec(
            **{"policy": PLAIN, "timeline": True, **options},
            lanes=[LaneSpec()] * lanes,
            families=[FamilySpec.uniform(lanes, BATCHED)] * len(tenants),
            tenants=tenants,
        )
    )


def on_lane_0(*times: int, slo_ns: int | None = None) -> SimTenant:
    return SimTenant(lane=0, slo_ns=slo_ns, arrivals=SimArrivals.trace(*times))


def test_a_re_route_under_load_loses_nothing() -> None:
    """Lane 0 answers what it had; lane 1 takes over at 1500, in the middle of a launch."""
    run = stepped(tenants=[on_lane_0(0, 100, 200, 1400, 1600, 1700, 1800)])
    assert run.run_until(1500)
    assert (run.now, run.counts(), run.waiting) == (1500, ((4, 1, 1, 0),), 1)
    run.set_routes(0, lane=1)
    assert not run.run_until()
    happened = [(event[0], *event[3:]) for event in run.result().timeline() if event[1] == "start"]
    assert happened == [
        (0, 0, 1, (0,)),
        (1000, 0, 2, (1, 2)),
        (1600, 1, 1, (4,)),
        (2200, 0, 1, (3,)),
        (2600, 1, 2, (5, 6)),
    ]
    assert run.counts() == ((7, 7, 7, 0),)
    assert run.now == run.result().end_ns == 3800


def test_a_change_comes_after_all_that_happens_at_its_instant() -> None:
    run = stepped(tenants=[on_lane_0(1000, 1001)])
    run.run_until(1000)
    run.set_routes(0, lane=1)
    run.run_until()
    assert [lane.launches for lane in run.lanes] == [1, 1]


def test_a_lane_added_under_way_serves_and_closes_again() -> None:
    run = stepped(lanes=1, tenants=[on_lane_0(0, 10, 20, 5000)])
    run.run_until(500)
    lane = run.add_lane(units=3)
    for bucket in BATCHED:
        run.set_latency(0, lane, bucket, 100)
    run.set_routes(0, lane=lane, move=True)
    run.run_until(2000)
    assert run.load(0) == 0
    run.close_lane(0)
    assert not run.run_until()
    assert [each.samples for each in run.lanes] == [1, 3]
    assert run.counts() == ((4, 4, 4, 0),)


def test_stopping_often_changes_nothing() -> None:
    tenants = [
        SimTenant(lane=lane, slo_ns=4000, family=lane, arrivals=SimArrivals(rate_rps=900_000.0))
        for lane in range(2)
    ]
    spec = {"lanes": [LaneSpec()] * 2, "families": [FamilySpec.uniform(2, BATCHED)] * 2,
            "tenants": tenants, "horizon_ns": 300_000, "seed": 5}  # fmt: skip
    whole = simulate(**spec, policy="space-time", timeline=True)
    run = stepped(tenants=tenants, policy="space-time", horizon_ns=300_000, seed=5)
    time = 0
    while run.run_until(time):
        time += 777
    assert run.result().timeline() == whole.timeline
    assert len(whole.timeline) > 600


def test_constant_arrivals_keep_their_phase_when_the_rate_changes() -> None:
    one = SimTenant(lane=0, arrivals=SimArrivals(process="constant", rate_rps=1e6))
    run = stepped(tenants=[one], horizon_ns=12_000)
    run.run_until(2500)  # 0, 1000, 2000; the next is half a gap away
    run.set_rate(0, 0.5e6)
    run.run_until(5600)  # 3500, 5500; the next is 0.95 of a gap away
    run.set_rate(0, 0)
    run.run_until(9000)
    run.set_rate(0, 1e6)  # 9950, 10950, 11950
    run.run_until()
    arrived = [event[0] for event in run.result().timeline() if event[1] == "arrive"]
    assert arrived == [0, 1000, 2000, 3500, 5500, 9950, 10950, 11950]


def test_a_random_process_is_seen_through_its_integrated_rate() -> None:
    """Twice the rate in half the time: the same draws, at half the distance."""
    times = {}
    for rate in (1000.0, 2000.0):
        one = SimTenant(lane=0, slo_ns=1, arrivals=SimArrivals(rate_rps=1000.0))
        run = stepped(tenants=[one], horizon_ns=SECOND, seed=3)
        run.run_until(SECOND // 10)
        run.set_rate(0, rate)
        run.run_until()
        times[rate] = [e[0] for e in run.result().timeline() if e[1] == "arrive"]
    change = SECOND // 10
    slow = [time for time in times[1000.0] if time > change]
    quick = [time for time in times[2000.0] if time > change]
    assert len(slow) > 700
    assert quick[: len(slow)] == pytest.approx(
        [change + (time - change) / 2 for time in slow], abs=1
    )


def test_changes_that_are_none_are_refused() -> None:
    run = stepped(tenants=[on_lane_0(0)])
    with pytest.raises(ValueError, match="a trace has its times"):
        run.set_rate(0, 5.0)
    with pytest.raises(ValueError, match=r"set_rate\.tenant"):
        run.set_rate(3, 5.0)
    endless = stepped(tenants=[SimTenant(lane=0, arrivals=SimArrivals(rate_rps=1.0))])
    with pytest.raises(ValueError, match="horizon_ns"):
        endless.run_until()
    with pytest.raises(ValueError, match=r"arrivals\.rate"):
        endless.set_rate(0, -1.0)


@settings(max_examples=120, deadline=None)
@given(
    route=st.sampled_from(["pinned", "weighted", "least-wait", "elsa"]),
    order=st.sampled_from(["fifo", "edf", "fair", "duty"]),
    batch=st.sampled_from(["one", "greedy", "timeout", "slack"]),
    lend=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_request_leaves_once_whatever_is_changed(
    route: str, order: str, batch: str, lend: bool, seed: int
) -> None:
    rng = random.Random(seed)
    policy = Policy(route=route, order=order, batch=batch, lend=lend, timeout_ns=700,
                    straggler_multiple=1.5)  # fmt: skip
    tenants = [
        SimTenant(family=n, lane=n % 2, slo_ns=rng.choice([None, 3000, 9000]),
                   arrivals=SimArrivals(rate_rps=1e6))
        for n in range(3)
    ]  # fmt: skip
    run = stepped(tenants=tenants, policy=policy, seed=seed, horizon_ns=60_000, record=True)
    open_lanes = [0, 1]
    for _ in range(25):
        run.run_until(run.now + rng.randrange(3000))
        change(run, rng, open_lanes, order)
    assert not run.run_until()
    assert run.waiting == 0
    for offered, completed, met, dropped in run.counts():
        assert offered == completed + dropped
        assert met <= completed
    ends = [event for event in run.result().timeline() if event[1] in {"start", "drop"}]
    gone = [r for e in ends for r in (e[5] if e[1] == "start" else (e[2],))]
    assert sorted(gone) == list(range(sum(count[0] for count in run.counts())))
    replay(Recording(run.result().recording)).check()


def change(run: _native.Simulation, rng: random.Random, open_lanes: list[int], order: str) -> None:
    tenant, lane = rng.randrange(3), rng.choice(open_lanes)
    kind = rng.randrange(6)
    if kind == 0:
        new = run.add_lane(units=rng.randint(1, 4), pool=rng.choice([None, 0]))
        for family in range(3):
            for bucket in rng.choice([(1,), (1, 2), (1, 2, 4)]):
                run.set_latency(family, new, bucket, 900 + bucket * rng.randint(1, 300))
        open_lanes.append(new)
    elif kind == 1:
        run.set_rate(tenant, rng.choice([0.0, 1e5, 1e6, 2e6]))
    elif kind == 2 and order == "duty":
        run.set_duty(lane, [(rng.randrange(3), rng.randint(1, 4)) for _ in range(rng.randrange(4))])
    elif kind == 3:
        run.set_batch(tenant, lane, rng.choice([None, 1, 2, 4]))
    elif kind == 4 and run.load(lane) == 0 and len(open_lanes) > 1:
        other = next(each for each in open_lanes if each != lane)
        for each in range(3):
            run.set_routes(each, lane=other)
        run.close_lane(lane)  # also if what was re-routed has been lent to it at once
        open_lanes.remove(lane)
    else:
        weights = [0.0] * (1 + max(open_lanes))
        for each in open_lanes:
            weights[each] = rng.random()
        run.set_routes(tenant, lane=lane, lane_weights=weights, move=rng.random() < 0.5)
