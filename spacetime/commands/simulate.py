"""`spacetime simulate`: reads a plan, a workload and profiles, and shows what becomes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.devices import device_file
from spacetime.plan.plan_json import read_plan
from spacetime.policy import Policy
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.simulation.plan_report import plan_report, plan_timeline
from spacetime.simulation.rate_search import RateSearch, highest_rate
from spacetime.terminal.progress import working
from spacetime.terminal.report_tables import percent, tenants_table
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload.workload_file import read_workload


@dataclass(frozen=True, kw_only=True)
class SimulateCommand:
    """The options of `spacetime simulate` without --controller. `duration` is in seconds."""

    plan: Path
    workload: Path
    profiles: Path
    policy: str | None
    device: str | None
    duration: float | None
    replications: int
    seed: int | None
    rate_scale: float
    late: bool
    highest: float | None
    timeline: Path | None
    as_json: bool


def run(asked: SimulateCommand) -> None:
    """Simulate and print tables, or the report as JSON."""
    if asked.device is not None:
        device_file.device_named(asked.device)  # what is stranded is told by its size
    options = _options(asked)
    plan = read_plan(asked.plan)
    files = plan, read_workload(asked.workload), read_profiles(asked.profiles)
    with working("simulating") as done:
        simulated = simulate_plan(*files, options)
        report = plan_report(simulated)
        if asked.highest is not None:
            search = highest_rate(
                *files,
                options,
                target=asked.highest,
                seen=lambda scale: done(0, f"simulating {scale:.4g} times the rates"),
            )
            report["highest_rate"] = _search_json(search)
    if asked.timeline is not None:
        events = {"traceEvents": plan_timeline(simulated)}
        asked.timeline.write_text(json.dumps(events), encoding="utf-8")
    if asked.as_json:
        print(json.dumps(report, indent=2))
    else:
        print_simulation(report)


def _options(asked: SimulateCommand) -> SimOptions:
    return SimOptions(
        policy=None if asked.policy is None else Policy.named(asked.policy),
        duration_ns=None if asked.duration is None else round(asked.duration * SECOND),
        replications=asked.replications,
        seed=asked.seed,
        rate_scale=asked.rate_scale,
        drops=not asked.late,
        timeline=asked.timeline is not None,
    )


def _search_json(search: RateSearch) -> dict[str, Any]:
    return {
        "rate_scale": search.scale,
        "target": search.target,
        "probes": [
            {"rate_scale": probe.scale, "attainment": probe.attainment} for probe in search.probes
        ],
    }


def print_simulation(report: dict[str, Any]) -> None:
    """Tables by tenant and partition, and the sums."""
    console = Console()
    console.print(tenants_table(report))
    console.print(_partitions(report))
    how, overall = report["simulated"], report["overall"]
    attained = overall["confidence_95"]["attainment"]
    console.print(
        f"{how['gpus']} devices ({how['device']}), planned by {how['planner']}, "
        f"{how['arrivals']} arrivals, {how['replications']} replications: "
        f"{overall['offered']:,} requests, {percent(attained['mean'])}"
        + (f" ± {100 * attained['half']:.2g}" if attained["half"] is not None else "")
        + " in time",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if "highest_rate" in report:
        highest = report["highest_rate"]
        console.print(
            f"Highest rate with every tenant at {percent(highest['target'])}: "
            f"{highest['rate_scale']:.3g} times the workload's",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _partitions(report: dict[str, Any]) -> FittedTable:
    rows = []
    for row in report["partitions"]:
        batch = row["mean_batch"]
        rows.append((
            str(row["gpu"]), row["id"], f"{row['kind']} {row['units']}", str(row["procs"]),
            percent(row["utilisation"]), f"{row['idle_units']:.2f}",
            "-" if batch is None else f"{batch:.3g}",
        ))  # fmt: skip
    heads = ("gpu", "partition", "size", "procs", "busy", "idle units", "batch")
    return FittedTable(heads, rows, words=("partition", "size"))
