"""How many requests a second the scheduler decides in simulation, on one core.

    spacetime bench scheduler [--requests 3000000] [--out DIR]

Eight tenants of one family on four lanes, Poisson arrivals; the time includes drawing the arrivals
and keeping the statistics.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.policy import PRESETS
from spacetime.simulation.simulator import FamilySpec, LaneSpec, SimArrivals, SimTenant, simulate

LATENCY_NS = {1: 1_000_000, 2: 1_300_000, 4: 1_900_000, 8: 3_100_000, 16: 5_500_000}
TENANTS, LANES = 8, 4
CAPACITY_RPS = {True: LANES * 16 / 5.5e-3, False: LANES / 1e-3}  # with batches, one by one


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0,
    requests: int = 3_000_000,
) -> dict[str, Any]:  # fmt: skip
    """Simulates every policy but time-only at 80 % load, and space-time at three loads."""
    requests = min(requests, 20_000) if quick else requests
    result = record.header("scheduler", seed=seed, quick=quick, chosen={"requests": [requests]})
    result["requests"] = requests
    result["rows"] = [
        measure(policy, load, requests, seed)
        for policy, load in [("space-time", 0.2), ("space-time", 0.5), ("space-time", 0.8)]
        + [(name, 0.8) for name in PRESETS if name not in {"space-time", "time-only"}]
    ]
    heads = ("policy", "load, of capacity", "requests/s", "ns a request", "mean batch",
             "in time")  # fmt: skip
    keys = ("policy", "load", "requests_per_s", "ns_per_request", "mean_batch", "attainment")
    lines = [[row[key] for key in keys] for row in result["rows"]]
    shown = record.table("requests simulated on one core", heads, lines)
    record.publish(result, [shown], out=out, as_json=as_json, plots=None)
    return result


def measure(policy: str, load: float, requests: int, seed: int) -> dict[str, object]:
    """Simulates one policy and returns its row.

    load: the rate, as a part of what the lanes can do under this policy.
    """
    rate_rps = load * CAPACITY_RPS[PRESETS[policy].batch != "one"]
    tenants = [
        SimTenant(
            lane=tenant % LANES,
            lane_weights=(1.0,) * LANES,
            slo_ns=30_000_000,
            arrivals=SimArrivals(rate_rps=rate_rps / TENANTS),
        )
        for tenant in range(TENANTS)
    ]
    begin = time.perf_counter()
    run = simulate(
        policy=policy,
        lanes=[LaneSpec()] * LANES,
        families=[FamilySpec.uniform(LANES, LATENCY_NS)],
        tenants=tenants,
        requests=requests,
        seed=seed,
    )
    seconds = time.perf_counter() - begin
    completed = sum(tenant.completed for tenant in run.tenants)
    launches = sum(lane.launches for lane in run.lanes)
    return {
        "policy": policy,
        "load": load,
        "requests_per_s": round(requests / seconds),
        "ns_per_request": round(seconds / requests * 1e9),
        "mean_batch": round(sum(lane.samples for lane in run.lanes) / launches, 2),
        "attainment": round(sum(tenant.met for tenant in run.tenants) / requests, 4),
        "completed": completed,
    }
