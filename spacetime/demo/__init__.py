"""`spacetime demo`: real models, the same arrivals under three policies, every answer checked."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from spacetime import zoo
from spacetime.demo import trial, verdict

POLICIES = ("time-only", "space-only", "space-time")


def run(
    *,
    tenants: int = 8,
    seconds: float = 10.0,
    model: str = "digits",
    load: float = 2.0,
    seed: int = 0,
    out: Path = Path("out"),
    as_json: bool = False,
) -> None:
    """Run the demo, print its tables (or its report as JSON) and write its files to `out`.

    `seconds` is how long each policy runs; `load` the offered requests as a multiple of what
    time-only can answer. Raises WrongAnswer where sharing changed an answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    screen = Console(stderr=True)
    with Progress(
        console=screen, transient=True, disable=not screen.is_terminal, refresh_per_second=4
    ) as progress:
        entries = zoo.load(model, tenants, seed=seed)
        exhibits = [
            trial.exhibit(entry)
            for entry in progress.track(entries, total=tenants, description="models")
        ]
        runs: list[trial.Run] = []
        for policy in POLICIES:
            steps = progress.track(exhibits, description=f"{policy}: adding tenants")
            with trial.staged(policy, exhibits, steps) as stage:
                if not runs:
                    capacity_rps = trial.capacity_rps(stage)
                    due = trial.arrivals(
                        exhibits, seconds=seconds, rps=load * capacity_rps, seed=seed
                    )
                runs.append(trial.measure(stage, progress.track(due, description=policy)))
    setting = {
        "model": model, "seconds": seconds, "load": load, "seed": seed,
        "capacity_rps": capacity_rps,
    }  # fmt: skip
    report = verdict.judge(exhibits, runs, setting)
    report["files"] = verdict.write(out, report, runs)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        verdict.show(Console(), report)
