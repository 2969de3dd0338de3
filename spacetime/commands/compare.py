"""`spacetime compare`: reads scenarios, runs every planner on them, shows and writes verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.devices import device_file
from spacetime.plan import PlanOptions
from spacetime.planners.registry import PLANNERS
from spacetime.profiles import profile_file
from spacetime.simulation.comparison import DEMAND, Verdict, compare
from spacetime.simulation.fixed_plan import SimOptions
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload import scenario_file

FORMAT = "spacetime.compare/1"


def from_options(
    *,
    scenarios: Path,
    profiles: Path,
    device: str | None,
    planners: Sequence[str],
    gpus: int | None,
    max_procs: int,
    max_utilisation: float,
    duration: float,
    replications: int,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare and print a table or JSON; with `out` also write compare.json and compare.png."""
    names = tuple(planners) or tuple(PLANNERS)
    points = profile_file.read(profiles)
    found = scenario_file.read(scenarios)
    verdicts: list[Verdict] = []
    screen = Console(stderr=True)
    with working("planning and simulating", len(found) * len(names)) as done:
        for verdict in compare(
            found, names, profiles=points, device=device_file.named(device or points.device),
            plan_options=PlanOptions(
                gpus=gpus, max_procs=max_procs, max_utilisation=max_utilisation
            ),
            sim_options=SimOptions(
                duration_ns=round(duration * SECOND), replications=replications, seed=seed
            ),
        ):  # fmt: skip
            verdicts.append(verdict)
            done(len(verdicts), f"{verdict.scenario}, {verdict.planner}")
    record = as_record(verdicts)
    if out is not None:
        _write(record, out, screen)
    if as_json:
        print(json.dumps(record, indent=2))
    else:
        show(verdicts, Console())


def as_record(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The verdicts as JSON, `spacetime.compare/1`; without times, so same input, same bytes."""
    rows = [asdict(verdict) | {"keeps": verdict.keeps} for verdict in verdicts]
    for row in rows:
        del row["planning_s"]
    return {"format": FORMAT, "demanded_attainment": DEMAND, "rows": rows}


def _write(record: dict[str, Any], out: Path, screen: Console) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    try:
        plot = import_module("spacetime.plots.compare")
    except ModuleNotFoundError as error:
        screen.print(f"no picture: {(error.name or '').split('.')[0]} is not installed")
    else:
        plot.draw_compare(record, out / "compare.png")


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """A row for each scenario and planner; below, why plans were refused or are unsound."""
    heads = ("scenario", "planner", "devices", "bound", "stranded", "idle", "in time", "worst",
             "planned ms")  # fmt: skip
    rows = [_cells(each) for each in verdicts]
    console.print(FittedTable(heads, rows, words=("scenario", "planner")))
    for each in verdicts:
        if why := each.refused or "; ".join(each.violations):
            console.print(f"{each.scenario}, {each.planner}: {why}", soft_wrap=True)


def _cells(each: Verdict) -> tuple[str, ...]:
    planned = f"{each.planning_s * 1000:,.1f}"
    if each.refused is not None:
        return (each.scenario, each.planner, "refused", *"-----", planned)
    return (
        each.scenario, each.planner, f"{each.gpus}{' unsound' * bool(each.violations)}",
        str(each.lower_bound_gpus or "-"),
        "-" if each.stranded_units is None else str(each.stranded_units),
        f"{each.idle_units:.1f}", _part(each.attainment), _part(each.worst_attainment), planned,
    )  # fmt: skip


def _part(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.2%}"
