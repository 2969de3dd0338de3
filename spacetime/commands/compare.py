"""`spacetime compare`: reads scenarios, runs every planner on them, shows and writes verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.devices import device_file
from spacetime.plan import PlanOptions
from spacetime.planners.registry import PLANNERS
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.comparison import DEMAND, Verdict, compare
from spacetime.simulation.fixed_plan import SimOptions
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload.scenario_file import read_scenarios

FORMAT = "spacetime.compare/1"


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """The options of `spacetime compare`. `duration` is in seconds; no planner means all."""

    scenarios: Path
    profiles: Path
    device: str | None
    planners: Sequence[str]
    gpus: int | None
    max_procs: int
    max_utilisation: float
    duration: float
    replications: int
    seed: int | None
    out: Path | None
    as_json: bool


def run(asked: CompareCommand) -> None:
    """Compare and print a table or JSON; with `out` also write compare.json and compare.png."""
    verdicts = _verdicts(asked)
    record = as_record(verdicts)
    if asked.out is not None:
        _write(record, asked.out, Console(stderr=True))
    if asked.as_json:
        print(json.dumps(record, indent=2))
    else:
        print_comparison(verdicts, Console())


def _verdicts(asked: CompareCommand) -> list[Verdict]:
    """A verdict for each scenario and planner, with a progress bar meanwhile."""
    names = tuple(asked.planners) or tuple(PLANNERS)
    points = read_profiles(asked.profiles)
    scenarios = read_scenarios(asked.scenarios)
    verdicts: list[Verdict] = []
    with working("planning and simulating", len(scenarios) * len(names)) as done:
        for verdict in compare(
            scenarios,
            names,
            profiles=points,
            device=device_file.device_named(asked.device or points.device),
            plan_options=PlanOptions(
                gpus=asked.gpus, max_procs=asked.max_procs, max_utilisation=asked.max_utilisation
            ),
            sim_options=SimOptions(
                duration_ns=round(asked.duration * SECOND),
                replications=asked.replications,
                seed=asked.seed,
            ),
        ):
            verdicts.append(verdict)
            done(len(verdicts), f"{verdict.scenario}, {verdict.planner}")
    return verdicts


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
        missing = (error.name or "").split(".")[0]
        fix = "pip install 'spacetime[demo]'"
        screen.print(f"no picture: {missing} is not installed: {fix}", markup=False)
    else:
        plot.draw_compare(record, out / "compare.png")


def print_comparison(verdicts: Sequence[Verdict], console: Console) -> None:
    """A row for each scenario and planner; below, why plans were refused or are unsound."""
    heads = ("scenario", "planner", "devices", "bound", "stranded", "idle", "in time", "worst",
             "planned ms")  # fmt: skip
    rows = [_cells(verdict) for verdict in verdicts]
    console.print(FittedTable(heads, rows, words=("scenario", "planner")))
    for verdict in verdicts:
        if why := verdict.refused or "; ".join(verdict.violations):
            console.print(f"{verdict.scenario}, {verdict.planner}: {why}", soft_wrap=True)


def _cells(verdict: Verdict) -> tuple[str, ...]:
    planned = f"{verdict.planning_s * 1000:,.1f}"
    if verdict.refused is not None:
        return (verdict.scenario, verdict.planner, "refused", *"-----", planned)
    return (
        verdict.scenario,
        verdict.planner,
        f"{verdict.gpus}{' unsound' * bool(verdict.violations)}",
        str(verdict.lower_bound_gpus or "-"),
        "-" if verdict.stranded_units is None else str(verdict.stranded_units),
        f"{verdict.idle_units:.1f}",
        _part(verdict.attainment),
        _part(verdict.worst_attainment),
        planned,
    )


def _part(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.2%}"
