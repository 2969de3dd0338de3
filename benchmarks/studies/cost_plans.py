"""What predicted profiles are good for: the plans they lead to, judged by what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spacetime.benchmarks import record
from spacetime.devices.facts import A100_80
from spacetime.plan import PlanOptions
from spacetime.plan.check import check_plan
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.scenario_file import read_scenarios

PLANNER = "parvagpu"


def compared(measured: Profiles, predicted_us: Callable[[Point], float]) -> list[dict[str, Any]]:
    """Plans each scenario from both; returns devices, and what the predicted plan breaks.

    Points exist where measured ones do, since nothing here predicts memory. `bounds`: the words of
    `plan/check` that break at full utilisation, by how many tenants or partitions.
    """
    predicted = Profiles(tuple(_with(point, predicted_us(point) / 1e3) for point in measured))
    rows = []
    for name, load in read_scenarios(record.a100("scenarios.csv")).items():
        own, other = (
            planner(PLANNER).plan(load, points, A100_80, PlanOptions())
            for points in (measured, predicted)
        )
        broken = check_plan(other, load, measured, A100_80, PlanOptions(max_utilisation=1))
        words = [violation.bound for violation in broken]
        rows.append({
            "scenario": name,
            "tenants": len(load.tenants),
            "devices": {"measured": len(own.gpus), "predicted": len(other.gpus)},
            "bounds": {word: words.count(word) for word in dict.fromkeys(words)},
        })  # fmt: skip
    return rows


def _with(point: Point, ms: float) -> Point:
    rate = point.batch * point.procs / ms * 1e3
    return replace(point, latency_ms=ms, throughput_rps=rate, source="predicted")
