"""The agreement benchmark runs and compares; how well they agree is its own business."""

from __future__ import annotations

import torch
from torch import nn

from spacetime.benchmarks import bench_agreement
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.simulation.simulator import FamilySpec, LaneSpec, SimArrivals, SimTenant, native_run
from spacetime.workload.openloop import Sent


def test_a_policy_is_driven_and_simulated_with_the_same_requests() -> None:
    torch.manual_seed(0)
    models = [ZooModel(f"tiny-{n}", nn.Linear(8, 4).eval(), torch.randn(6, 8)) for n in range(2)]
    row = bench_agreement.row_of("space-only", models, 0.002, seconds=0.2, seed=0)
    assert row["requests"] > 0
    for side in ("live", "simulated"):
        assert len(row[side]["ms"]) == len(row["quantiles"])
        assert row[side]["ms"] == sorted(row[side]["ms"])
    assert {"p50", "p99", "throughput"} == set(row["off"]) == set(row["hindsight"]["off"])
    assert len(bench_agreement.shown([row | {"model": "tiny"}]).rows) == 1


def test_two_sides_that_did_the_same_agree() -> None:
    ms = 10**6
    times = [n * 5 * ms for n in range(200)]
    foretold = native_run(
        policy="time-only",
        lanes=[LaneSpec()],
        families=[FamilySpec(latency_ns={0: {1: 3 * ms}})],
        tenants=[SimTenant(lane=0, arrivals=SimArrivals.trace(*times))],
    )
    live = [Sent(0, 0, due_ns=t, late_ns=0, latency_ns=3 * ms) for t in times]
    assert bench_agreement.compared([live], [foretold])["agrees"]
    slower = [Sent(0, 0, due_ns=t, late_ns=0, latency_ns=4 * ms) for t in times]
    assert not bench_agreement.compared([slower], [foretold])["agrees"]
    late = [Sent(0, 0, due_ns=t - ms, late_ns=ms, latency_ns=4 * ms) for t in times]
    assert bench_agreement.compared([late], [foretold])["agrees"]
