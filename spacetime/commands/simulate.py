"""`spacetime simulate`: reads a plan, a workload and profiles, and shows what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.commands.tables import percent, tenants_table
from spacetime.devices import device_file
from spacetime.plan.plan_json import read_plan
from spacetime.policy import Policy
from spacetime.profiles import profile_file
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.simulation.plan_report import plan_report, plan_timeline
from spacetime.simulation.rate_search import RateSearch, highest_rate
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload import workload_file


def from_options(
    *,
    plan: Path,
    workload: Path,
    profiles: Path,
    policy: str | None,
    device: str | None,
    duration: float | None,
    replications: int,
    seed: int | None,
    rate_scale: float,
    late: bool,
    highest: float | None,
    timeline: Path | None,
    as_json: bool,
) -> None:
    """Simulate and print tables, or the report as JSON."""
    if device is not None:
        device_file.named(device)  # what is stranded is told by its size
    options = SimOptions(
        policy=None if policy is None else Policy.named(policy),
        duration_ns=None if duration is None else round(duration * SECOND),
        replications=replications,
        seed=seed,
        rate_scale=rate_scale,
        drops=not late,
        timeline=timeline is not None,
    )
    read = read_plan(plan), workload_file.read(workload), profile_file.read(profiles)
    with working("simulating") as done:
        run = simulate_plan(*read, options)
        report = plan_report(run)
        if highest is not None:
            found = highest_rate(
                *read, options, target=highest,
                seen=lambda scale: done(0, f"simulating {scale:.4g} times the rates"),
            )  # fmt: skip
            report["highest_rate"] = _search_json(found)
    if timeline is not None:
        timeline.write_text(json.dumps({"traceEvents": plan_timeline(run)}), encoding="utf-8")
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


def _search_json(search: RateSearch) -> dict[str, Any]:
    return {
        "rate_scale": search.scale,
        "target": search.target,
        "probes": [
            {"rate_scale": probe.scale, "attainment": probe.attainment} for probe in search.probes
        ],
    }


def show(report: dict[str, Any]) -> None:
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
        found = report["highest_rate"]
        console.print(
            f"Highest rate with every tenant at {percent(found['target'])}: "
            f"{found['rate_scale']:.3g} times the workload's",
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
