"""ParvaGPU's evaluation: devices for S1 to S4 and what each step is worth, beside the artifact's.

    spacetime bench parvagpu [--quick] [--out DIR]

Planned from the published A100-80 profiles by the paper's own rules (half the objective, no
utilisation ceiling). Committed in its artifact are the deployments of up to five processes; the
other numbers called the paper's are those of an independent implementation that reproduces these.
What the paper does not show is simulated: requests in time at random arrivals, of the worst tenant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.devices.facts import device
from spacetime.plan import Plan, PlanOptions, require
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.units import SECOND
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload import Workload

DEVICE = device("a100-80gb")
SCENARIOS = ("S1", "S2", "S3", "S4")
COMMITTED = "parvagpu, 5 processes"
# Way -> planner, its choices, processes; and devices of the artifact, None where it has none.
WAYS: dict[str, tuple[str, dict[str, Any], int, tuple[int, ...] | None]] = {
    "whole devices, 1 process": ("whole-gpu", {}, 1, (6, 11, 11, 11)),
    "not optimised, 5 processes": ("parvagpu", {"optimise": False}, 5, (2, 3, 8, 11)),
    "parvagpu, 1 process": ("parvagpu", {}, 1, (2, 3, 5, 7)),
    "parvagpu, 3 processes": ("parvagpu", {}, 3, (2, 3, 5, 7)),
    COMMITTED: ("parvagpu", {}, 5, (2, 3, 5, 7)),
    "exact, 5 processes": ("exact", {"slo_factor": 0.45}, 5, (2, 3, 5, 7)),
}
# Slices in use, of the artifact with five processes.
USED = {"not optimised, 5 processes": (10, 20, 30, 44), COMMITTED: (10, 20, 33, 48)}


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Plans every scenario in every way. Raises UnsupportedError outside a checkout."""
    profiles = read_profiles(record.a100("profiles.csv"))
    scenarios = read_scenarios(record.a100("scenarios.csv"))
    result = record.header("parvagpu", seed=seed, quick=quick, chosen={})
    chosen = SCENARIOS[: 2 if quick else None]
    loads = {name: replace(scenarios[name], seed=seed) for name in chosen}
    exact = not quick and find_spec("scipy") is not None
    ways = [way for way in WAYS if exact or not way.startswith("exact")]
    sim = SimOptions(duration_ns=(1 if quick else 10) * SECOND, replications=1 if quick else 3)
    result["rows"] = [
        _row(way, place, load, profiles, sim)
        for way in ways
        for place, load in enumerate(loads.items())
    ]
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="planning")
    return result


def _row(
    way: str, place: int, named: tuple[str, Workload], profiles: Profiles, sim: SimOptions
) -> dict[str, Any]:
    name, choices, procs, paper = WAYS[way]
    scenario, load = named
    options = PlanOptions(max_utilisation=1, max_procs=procs)
    plan = require(planner(name, **choices).plan(load, profiles, DEVICE, options),
                   load, profiles, DEVICE, options)  # fmt: skip
    used = USED.get(way)
    return {
        "way": way,
        "scenario": scenario,
        "gpus": len(plan.gpus),
        "paper_gpus": None if paper is None else paper[place],
        "slices": _slices(plan),
        "paper_slices": None if used is None else used[place],
        "unused": 1 - _slices(plan) / (7 * len(plan.gpus)),
        "worst_in_time": min(simulate_plan(plan, load, profiles, sim).attainments.values()),
    }


def _slices(plan: Plan) -> int:
    return sum(part.units for gpu in plan.gpus for part in gpu.partitions)


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    for scenario in dict.fromkeys(row["scenario"] for row in result["rows"]):
        yield record.table(
            f"{scenario}: devices and slices in use",
            ("way", "devices", "paper's devices", "slices", "paper's slices", "slices unused",
             "in time, worst tenant"),
            [
                (row["way"], row["gpus"], row["paper_gpus"], row["slices"], row["paper_slices"],
                 f"{row['unused']:.1%}", f"{row['worst_in_time']:.1%}")
                for row in result["rows"]
                if row["scenario"] == scenario
            ],
        )  # fmt: skip
    off = [row for row in result["rows"] if row["paper_gpus"] not in {None, row["gpus"]}]
    shown = ", ".join(f"{row['way']} on {row['scenario']}" for row in off)
    yield f"other numbers of devices than the artifact: {shown or 'none'}"
