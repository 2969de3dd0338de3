"""The simulator against closed forms, exact small cases, and its own account."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime import _native
from spacetime.policy import PRESETS, Policy
from spacetime.simulation import simulator
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimNoise,
    SimResult,
    SimSlowdown,
    SimTenant,
    native_run,
    simulate,
)

MS = 1_000_000
ONE_MS = FamilySpec.uniform(1, {1: MS})


def queue_of_one(rate_rps: float, noise: SimNoise, **arrivals: object) -> SimResult:
    """A single server with a mean service time of 1 ms and an endless queue."""
    tenant = SimTenant(
        lane=0,
        queue_limit=2**31,
        arrivals=SimArrivals(rate_rps=rate_rps, **arrivals),  # type: ignore[arg-type]
    )
    return simulate(
        policy="time-only",
        lanes=[LaneSpec()],
        families=[ONE_MS],
        tenants=[tenant],
        noise=noise,
        requests=3_000_000,
        seed=11,
    )


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mean_wait_of_m_d_1(load: float) -> None:
    run = queue_of_one(1000 * load, SimNoise())
    expected = load / (2 * (1 - load)) * MS  # Pollaczek and Khinchine, no variance
    assert run.tenants[0].mean_wait_ns == pytest.approx(expected, rel=0.02)
    assert run.lanes[0].utilisation == pytest.approx(load, rel=0.01)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mean_wait_of_m_g_1_with_recorded_service_times(load: float) -> None:
    run = queue_of_one(1000 * load, SimNoise(kind="recorded", factors=(1.0, 3.0)))  # a mean of 2
    second_moment = (0.5**2 + 1.5**2) / 2
    expected = load * second_moment / (2 * (1 - load)) * MS  # Pollaczek and Khinchine
    assert run.tenants[0].mean_wait_ns == pytest.approx(expected, rel=0.02)
    assert run.lanes[0].utilisation == pytest.approx(load, rel=0.01)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mean_wait_and_tail_of_m_m_1(load: float) -> None:
    run = queue_of_one(1000 * load, SimNoise(kind="exponential"))
    tenant = run.tenants[0]
    assert tenant.mean_wait_ns == pytest.approx(load / (1 - load) * MS, rel=0.02)
    # The time in the system is exponential with mean 1 / (mu - lambda).
    assert tenant.p99_ns == pytest.approx(math.log(100) / (1 - load) * MS, rel=0.03)
    assert tenant.p50_ns == pytest.approx(math.log(2) / (1 - load) * MS, rel=0.03)


def test_mean_wait_of_m_g_1_with_lognormal_service() -> None:
    cv, load = 0.8, 0.5
    run = queue_of_one(1000 * load, SimNoise(kind="lognormal", cv=cv))
    expected = load / (1 - load) * (1 + cv * cv) / 2 * MS
    assert run.tenants[0].mean_wait_ns == pytest.approx(expected, rel=0.03)


def test_gamma_arrivals_with_cv_1_are_poisson_and_smoother_ones_wait_less() -> None:
    def wait(cv: float) -> float:
        return queue_of_one(500, SimNoise(), process="gamma", cv=cv).tenants[0].mean_wait_ns

    assert wait(1.0) == pytest.approx(0.5 * MS, rel=0.02)
    assert wait(0.3) < 0.1 * MS
    assert wait(2.0) > 1.0 * MS


def test_constant_arrivals_do_not_drift() -> None:
    run = simulate(
        policy="time-only",
        lanes=[LaneSpec()],
        families=[ONE_MS],
        tenants=[SimTenant(lane=0, arrivals=SimArrivals(process="constant", rate_rps=300))],
        horizon_ns=10**10,
        timeline=True,
    )
    arrived = [event[0] for event in run.timeline if event[1] == "arrive"]
    assert arrived == [round(n * 1e9 / 300) for n in range(3000)]
    assert run.tenants[0].mean_wait_ns == 0


def test_an_empty_system_takes_just_the_latency() -> None:
    run = queue_of_one(0.001, SimNoise())
    assert run.tenants[0].max_ns <= 2 * MS  # a chance meeting of two
    assert run.tenants[0].p50_ns == pytest.approx(MS, rel=0.01)


def test_finish_then_arrivals_then_wake_at_one_instant() -> None:
    # At 1000 the launch ends, two requests arrive and another is due: the finish comes first and
    # the two arrivals start together.
    run = simulate(
        policy=Policy(route="pinned", order="fifo", batch="greedy", lend=False),
        lanes=[LaneSpec()],
        families=[FamilySpec.uniform(1, {1: 1000, 2: 1200})],
        tenants=[
            SimTenant(lane=0, arrivals=SimArrivals.trace(0, 1000)),
            SimTenant(lane=0, arrivals=SimArrivals.trace(1000)),
            SimTenant(lane=0, arrivals=SimArrivals.trace(10), slo_ns=990),
        ],
        timeline=True,
    )
    assert run.timeline == [
        (0, "arrive", 0, 0),
        (0, "start", 1, 0, 1, (0,)),
        (10, "arrive", 1, 2),
        (1000, "finish", 1, 0),
        (1000, "drop", 1, 2, "deadline"),
        (1000, "arrive", 2, 0),
        (1000, "arrive", 3, 1),
        (1000, "start", 2, 0, 2, (2, 3)),
        (2200, "finish", 2, 0),
    ]


def test_late_answers_count_as_late_and_soft_objectives_drop_nothing() -> None:
    def run(drops: bool) -> SimResult:
        tenant = SimTenant(lane=0, slo_ns=2500, drops=drops, arrivals=SimArrivals.trace(*[0] * 5))
        return simulate(
            policy="time-only",
            lanes=[LaneSpec()],
            families=[FamilySpec.uniform(1, {1: 1000})],
            tenants=[tenant],
        )

    hard, soft = run(True).tenants[0], run(False).tenants[0]
    assert (hard.met, hard.late, hard.dropped["deadline"]) == (2, 1, 2)
    assert (soft.met, soft.late, soft.dropped["deadline"]) == (2, 3, 0)
    assert soft.attainment == 0.4


def test_a_slowdown_lasts_its_window() -> None:
    slow = SimSlowdown(from_ns=1500, until_ns=6000, factor=3.0)
    run = simulate(
        policy="time-only",
        lanes=[LaneSpec()],
        families=[FamilySpec.uniform(1, {1: 1000})],
        tenants=[SimTenant(lane=0, arrivals=SimArrivals.trace(*[0] * 5), slowdowns=(slow,))],
        timeline=True,
    )
    assert [e[0] for e in run.timeline if e[1] == "finish"] == [1000, 2000, 5000, 8000, 9000]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(PRESETS)),
    lanes=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([2e5, 8e5, 3e6]),
)
def test_the_account_of_every_preset_balances(
    name: str, lanes: int, seed: int, rate: float
) -> None:
    tenants = [
        SimTenant(
            family=n % 2,
            lane=n % lanes,
            samples=1 + n % 3,
            slo_ns=(None, 5_000, 20_000)[n % 3],
            queue_limit=20,
            arrivals=SimArrivals(rate_rps=rate),
            lane_weights=(1.0,) * lanes,
        )
        for n in range(4)
    ]
    family = FamilySpec.uniform(lanes, {1: 1000, 2: 1200, 4: 1600})
    run = simulate(
        policy=name,
        lanes=[LaneSpec(units=1 + n) for n in range(lanes)],
        families=[family, family],
        tenants=tenants,
        requests=300,
        seed=seed,
        noise=SimNoise(kind="lognormal", cv=0.3),
        timeline=True,
    )
    assert sum(t.offered for t in run.tenants) == 300
    for tenant in run.tenants:
        assert tenant.offered == tenant.completed + sum(tenant.dropped.values())
        assert tenant.completed == tenant.met + tenant.late
    busy_until = [0] * lanes
    for event in run.timeline:
        if event[1] == "start":
            assert busy_until[event[3]] is not None  # type: ignore[call-overload]
            busy_until[event[3]] = None  # type: ignore[call-overload]
        elif event[1] == "finish":
            busy_until[event[3]] = event[0]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": None}, "name a horizon_ns or a number of requests"),
        ({"tenants": [SimTenant(lane=0, samples=0)]}, "samples: must be at least 1"),
        ({"tenants": [SimTenant(lane=0, slo_ns=0)]}, "slo_ns: must be positive"),
        ({"noise": SimNoise(kind="pink")}, "noise: 'pink' is not one of none, exponential"),
        ({"noise": SimNoise(kind="lognormal")}, "noise_cv: must be positive"),
        ({"noise": SimNoise(kind="recorded")}, "noise_factors: must be positive, at least one"),
        ({"noise": SimNoise(kind="recorded", factors=(1.0, -1.0))},
         "noise_factors: must be positive"),
        ({"policy": "best"}, "policy: 'best' is not one of"),
        ({"tenants": [SimTenant(lane=0, arrivals=SimArrivals(rate_rps=-1))]}, "arrivals.rate"),
        (
            {"tenants": [SimTenant(lane=0, arrivals=SimArrivals(process="gamma", cv=0))]},
            "arrivals.cv",
        ),
        ({"tenants": [SimTenant(lane=0, arrivals=SimArrivals.trace(5, 4))]}, "arrivals.times"),
        ({"tenants": [SimTenant(lane=0, arrivals=SimArrivals(process="storm"))]},
         "process: 'storm'"),
        ({"lanes": [LaneSpec()] * 2, "tenants": [SimTenant(lane=1, arrivals=SimArrivals.trace(0))]},
         "latencies: none for family 0 on lane 1"),
    ],
)  # fmt: skip
def test_a_specification_that_is_none(change: dict[str, object], message: str) -> None:
    spec: dict[str, object] = {
        "policy": "time-only",
        "lanes": [LaneSpec()],
        "families": [ONE_MS],
        "tenants": [SimTenant(lane=0, arrivals=SimArrivals(rate_rps=10))],
        "requests": 10,
    }
    with pytest.raises(ValueError, match=message):
        simulate(**{**spec, **change})  # type: ignore[arg-type]


def test_a_lane_names_every_bucket_up_to_its_largest() -> None:
    assert FamilySpec(latency_ns={0: {1: 5}, 1: {1: 4, 2: 5}}).buckets == [1, 2]
    for holes in ({}, {0: {}}, {0: {1: 5, 2: 6}, 1: {2: 5}}):
        with pytest.raises(ValueError, match="latency_ns"):
            FamilySpec(latency_ns=holes)


@pytest.mark.parametrize("batch", ["greedy", "slack", "timeout"])
def test_a_lane_runs_no_batch_above_its_own_largest(batch: str) -> None:
    run = simulate(
        policy=Policy(route="weighted", order="fifo", batch=batch, lend=False),
        lanes=[LaneSpec()] * 2,
        families=[FamilySpec(latency_ns={0: {1: 1000, 2: 1200}, 1: {1: 900, 2: 1000, 4: 1500}})],
        tenants=[SimTenant(lane_weights=(1.0, 1.0), arrivals=SimArrivals.trace(*[0] * 16))],
        timeline=True,
    )
    sizes: dict[object, list[int]] = {0: [], 1: []}
    for event in run.timeline:
        if event[1] == "start":
            sizes[event[3]].append(len(event[5]))  # type: ignore[arg-type]
    assert sizes == {0: [2, 2, 2, 2], 1: [4, 4]}


def test_a_stream_draws_the_same_arrivals_wherever_its_tenant_stands() -> None:
    hundred = SimArrivals(rate_rps=100)

    def arrived(*streams: int | None) -> dict[int, list[object]]:
        run = simulate(
            policy="time-only",
            lanes=[LaneSpec()],
            families=[ONE_MS],
            tenants=[SimTenant(lane=0, stream=s, arrivals=hundred) for s in streams],
            horizon_ns=10**9,
            timeline=True,
        )
        return {
            tenant: [e[0] for e in run.timeline if e[1] == "arrive" and e[3] == tenant]
            for tenant in range(len(streams))
        }

    first, second = arrived(None, None), arrived(1, 0)
    assert first[0] != first[1]
    assert (first[0], first[1]) == (second[1], second[0])


@given(st.lists(st.integers(0, 2**41), min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_off_by_less_than_one_percent(values: list[int], fraction: float) -> None:
    histogram = _native.Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(math.ceil(fraction * len(values)), 1) - 1]
    assert histogram.percentile_ns(fraction) == pytest.approx(exact, rel=0.01, abs=1)
    assert (histogram.count, histogram.min_ns, histogram.max_ns) == (
        len(values), min(values), max(values),
    )  # fmt: skip
    assert histogram.mean_ns == pytest.approx(sum(values) / len(values))


def test_merged_histograms_are_the_histogram_of_both() -> None:
    parts = [_native.Histogram() for _ in range(3)]
    for n in range(1000):
        parts[n % 2].record(n * n)
        parts[2].record(n * n)
    parts[0].merge(parts[1])
    for fraction in (0.0, 0.1, 0.5, 0.99, 1.0):
        assert parts[0].percentile_ns(fraction) == parts[2].percentile_ns(fraction)
    assert parts[0].mean_ns == parts[2].mean_ns


def test_sizes_are_drawn_by_weight_and_leave_the_arrivals_alone() -> None:
    def run(*sizes: tuple[int, float]) -> list[tuple[object, ...]]:
        tenant = SimTenant(
            lane=0, arrivals=SimArrivals(rate_rps=100), sizes=sizes, queue_limit=10**6
        )
        return simulate(
            policy="elsa", lanes=[LaneSpec()], families=[FamilySpec(latency_ns={0: {1: 5, 4: 9}})],
            tenants=[tenant], requests=4000, seed=5, timeline=True,
        ).timeline  # fmt: skip

    mixed, single = run((1, 1.0), (3, 3.0)), run()
    assert [e for e in mixed if e[1] == "arrive"] == [e for e in single if e[1] == "arrive"]
    buckets = [e[4] for e in mixed if e[1] == "start"]
    assert len(buckets) == 4000  # each alone
    assert sorted(set(buckets)) == [1, 4]  # three are padded to four
    assert buckets.count(4) / 4000 == pytest.approx(0.75, abs=0.03)
    for wrong in ((0, 1.0), (1, 0.0), (1, math.nan)):
        with pytest.raises(ValueError, match="sizes: must map"):
            run(wrong)


def test_tenants_count_the_samples_that_were_drawn() -> None:
    found = native_run(
        policy="time-only",
        lanes=[LaneSpec()],
        families=[FamilySpec(latency_ns={0: {1: 1000, 4: 2000}})],
        tenants=[SimTenant(lane=0, sizes=((3, 1.0),), arrivals=SimArrivals.trace(0, 10))],
    )
    assert found.tenants[0].samples == found.lanes[0].samples == 6


def test_the_names_of_old_scripts_stay() -> None:
    pairs = {
        "Arrivals": SimArrivals, "TenantSpec": SimTenant, "Slowdown": simulator.SimSlowdown,
        "Noise": SimNoise, "Interference": simulator.SimInterference,
    }  # fmt: skip
    assert all(getattr(simulator, name) is kind for name, kind in pairs.items())
