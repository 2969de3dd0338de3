"""Exact timelines in virtual time: what every preset does with the same small workload."""

from __future__ import annotations

import pytest

from spacetime.policy import PRESETS, Policy
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimResult,
    SimTenant,
    simulate,
)

# L(1) = 1000, L(2) = 1200, L(4) = 1600: together is cheaper than apart.
FAMILY = FamilySpec.uniform(2, {1: 1000, 2: 1200, 4: 1600})
# Six requests of two tenants; numbered in order of arrival.
A = SimArrivals.trace(0, 100, 200)  # requests 0, 2, 4
B = SimArrivals.trace(50, 150, 250)  # requests 1, 3, 5


def launches(run: SimResult) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """(start time, lane, bucket, requests) of every launch."""
    return [(e[0], e[3], e[4], e[5]) for e in run.timeline if e[1] == "start"]  # type: ignore[misc]


def run_preset(name: str, *, lanes: int = 2, pinned: tuple[int, int] = (0, 1)) -> SimResult:
    tenants = [
        SimTenant(arrivals=a, lane=lane, lane_weights=(1.0, 1.0)[:lanes])
        for a, lane in zip((A, B), pinned, strict=True)
    ]
    family = FAMILY if lanes == 2 else FamilySpec.uniform(1, FAMILY.latency_ns[0])
    return simulate(
        policy=name,
        lanes=[LaneSpec()] * lanes,
        families=[family],
        tenants=tenants,
        timeline=True,
    )


def test_time_only_runs_one_request_at_a_time_in_order_of_arrival() -> None:
    run = run_preset("time-only", lanes=1, pinned=(0, 0))
    assert launches(run) == [(1000 * i, 0, 1, (i,)) for i in range(6)]
    assert run.timeline == [
        (0, "arrive", 0, 0),
        (0, "start", 1, 0, 1, (0,)),
        (50, "arrive", 1, 1),
        (100, "arrive", 2, 0),
        (150, "arrive", 3, 1),
        (200, "arrive", 4, 0),
        (250, "arrive", 5, 1),
        (1000, "finish", 1, 0),
        (1000, "start", 2, 0, 1, (1,)),
        (2000, "finish", 2, 0),
        (2000, "start", 3, 0, 1, (2,)),
        (3000, "finish", 3, 0),
        (3000, "start", 4, 0, 1, (3,)),
        (4000, "finish", 4, 0),
        (4000, "start", 5, 0, 1, (4,)),
        (5000, "finish", 5, 0),
        (5000, "start", 6, 0, 1, (5,)),
        (6000, "finish", 6, 0),
    ]


@pytest.mark.parametrize("name", ["space-only", "mps-default"])
def test_space_only_keeps_every_tenant_on_its_lane(name: str) -> None:
    assert launches(run_preset(name)) == [
        (0, 0, 1, (0,)),
        (50, 1, 1, (1,)),
        (1000, 0, 1, (2,)),
        (1050, 1, 1, (3,)),
        (2000, 0, 1, (4,)),
        (2050, 1, 1, (5,)),
    ]


def test_space_only_does_not_lend() -> None:
    # Lane 1 idles while both tenants wait on lane 0.
    run = run_preset("space-only", pinned=(0, 0))
    assert launches(run) == [(1000 * i, 0, 1, (i,)) for i in range(6)]


def test_space_time_fuses_what_waited_and_spreads_it_over_the_lanes() -> None:
    # 2: lane 0 ends at 1000, lane 1 at 1050, so lane 0. 3: joining 2 adds 200 and ends at 2200;
    # on lane 1 it ends at 2050. 4: joining 3 on lane 1 ends 2250, joining 2 ends 2200. 5: joining
    # 2 and 4 (bucket 4) ends 2600, joining 3 ends 2250. Each lane then waits for nobody: the time
    # since the last arrival exceeds what a fuller launch would save.
    assert launches(run_preset("space-time")) == [
        (0, 0, 1, (0,)),
        (50, 1, 1, (1,)),
        (1000, 0, 2, (2, 4)),
        (1050, 1, 2, (3, 5)),
    ]


def test_elsa_without_deadlines_takes_the_least_wait_in_the_class() -> None:
    # Lane 0 ends at 1000 and lane 1 at 1050: 2 goes to 0, 3 to 1 (1050 < 2000), and so on.
    assert launches(run_preset("elsa")) == [
        (0, 0, 1, (0,)),
        (50, 1, 1, (1,)),
        (1000, 0, 1, (2,)),
        (1050, 1, 1, (3,)),
        (2000, 0, 1, (4,)),
        (2050, 1, 1, (5,)),
    ]


def test_parvagpu_shares_by_weight_and_batches_what_waits() -> None:
    # Both tenants alternate between the lanes, lane 0 first: 0 1 4 5 on lane 0, 2 3 on lane 1.
    assert launches(run_preset("parvagpu")) == [
        (0, 0, 1, (0,)),
        (100, 1, 1, (2,)),
        (1000, 0, 4, (1, 4, 5)),
        (1100, 1, 1, (3,)),
    ]


def test_gpulet_gives_every_tenant_its_turn() -> None:
    run = simulate(
        policy="gpulet",
        lanes=[LaneSpec()],
        families=[FamilySpec.uniform(1, FAMILY.latency_ns[0])],
        tenants=[SimTenant(arrivals=A, lane=0), SimTenant(arrivals=B, lane=0)],
        duty={0: [(0, 2), (1, 1)]},
        timeline=True,
    )
    assert launches(run) == [
        (0, 0, 1, (0,)),
        (1000, 0, 1, (1,)),  # B's turn: one sample
        (2000, 0, 2, (2, 4)),  # A's: two
        (3200, 0, 1, (3,)),
        (4200, 0, 1, (5,)),  # A has nothing: its turn is skipped
    ]


def test_every_preset_has_an_exact_timeline_here() -> None:
    covered = {"time-only", "space-only", "mps-default", "space-time", "elsa", "parvagpu", "gpulet"}
    assert covered == set(PRESETS)


def test_nexus_duty_cycle_of_the_paper() -> None:
    """Nexus §4.1: A (SLO 200 ms, 64/s) with batch 8 and B (SLO 250 ms, 32/s) with batch 4 share a
    duty cycle of 125 ms, L_A(8) = 75 and L_B(4) = 50: both keep up, none exceeds d + L."""
    ms = 1_000_000
    period_a, period_b = 15_625_000, 31_250_000
    tenants = [
        SimTenant(
            family=0,
            lane=0,
            slo_ns=200 * ms,
            arrivals=SimArrivals.trace(*(i * period_a for i in range(640))),
        ),
        SimTenant(
            family=1,
            lane=0,
            slo_ns=250 * ms,
            arrivals=SimArrivals.trace(*(i * period_b for i in range(320))),
        ),
    ]
    families = [
        FamilySpec(latency_ns={0: {1: 20 * ms, 8: 75 * ms}}),
        FamilySpec(latency_ns={0: {1: 20 * ms, 4: 50 * ms}}),
    ]
    run = simulate(
        policy="gpulet",
        lanes=[LaneSpec()],
        families=families,
        tenants=tenants,
        duty={0: [(0, 8), (1, 4)]},
        timeline=True,
    )
    a, b = run.tenants
    assert (a.met, b.met) == (640, 320)
    assert a.max_ns <= 200 * ms
    assert b.max_ns <= 175 * ms
    assert all(bucket <= 8 for _, _, bucket, _ in launches(run))


def test_same_seed_same_timeline_and_another_seed_another() -> None:
    def run(seed: int) -> SimResult:
        tenants = [
            SimTenant(arrivals=SimArrivals(rate_rps=2e5), slo_ns=20_000),
            SimTenant(arrivals=SimArrivals(process="gamma", rate_rps=3e5, cv=2.0)),
        ]
        return simulate(
            policy=Policy.named("space-time"),
            lanes=[LaneSpec(), LaneSpec()],
            families=[FAMILY],
            tenants=tenants,
            requests=2000,
            seed=seed,
            timeline=True,
        )

    assert run(1) == run(1)
    assert run(1).timeline != run(2).timeline
