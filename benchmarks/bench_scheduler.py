"""How many requests a second the scheduler decides in simulation, on one core.

    python benchmarks/bench_scheduler.py [--requests 3000000] [--out scheduler.json]

Eight tenants of one family on four lanes, Poisson arrivals; the time includes drawing the arrivals
and keeping the statistics.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

from spacetime.core import PRESETS
from spacetime.simulator import Arrivals, FamilySpec, LaneSpec, TenantSpec, simulate

LATENCY_NS = {1: 1_000_000, 2: 1_300_000, 4: 1_900_000, 8: 3_100_000, 16: 5_500_000}
TENANTS, LANES = 8, 4
CAPACITY_RPS = {True: LANES * 16 / 5.5e-3, False: LANES / 1e-3}  # with batches, one by one


def measure(policy: str, load: float, requests: int) -> dict[str, object]:
    """One row: `load` is the fraction of what the lanes can do under this policy."""
    rate_rps = load * CAPACITY_RPS[PRESETS[policy].batch != "one"]
    tenants = [
        TenantSpec(
            lane=tenant % LANES,
            lane_weights=(1.0,) * LANES,
            slo_ns=30_000_000,
            arrivals=Arrivals(rate_rps=rate_rps / TENANTS),
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
        seed=1,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000_000)
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args()
    rows = [
        measure(policy, load, options.requests)
        for policy, load in [("space-time", 0.2), ("space-time", 0.5), ("space-time", 0.8)]
        + [(name, 0.8) for name in PRESETS if name not in {"space-time", "time-only"}]
    ]
    print(f"{'policy':<12} {'load':>5} {'M requests/s':>13} {'ns/request':>11} {'batch':>6} SLO")
    for row in rows:
        print(
            f"{row['policy']:<12} {row['load']:>5} {int(str(row['requests_per_s'])) / 1e6:>13.2f}"
            f" {row['ns_per_request']:>11} {row['mean_batch']:>6} {row['attainment']}"
        )
    if options.out:
        facts = {"machine": platform.machine(), "requests": options.requests, "rows": rows}
        options.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
