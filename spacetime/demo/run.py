"""`spacetime demo`: real models, the same arrivals under three policies, every answer checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from spacetime.demo import trial, verdict
from spacetime.demo.zoo import exhibits as zoo
from spacetime.terminal.progress import bars
from spacetime.workload.openloop import Sent
from spacetime.workload.workload import Arrival

POLICIES = ("time-only", "space-only", "space-time")


def run(
    *,
    tenants: int = 8,
    seconds: float = 10.0,
    model: str = "digits",
    load: float = 3.5,
    seed: int = 0,
    out: Path = Path("out"),
    as_json: bool = False,
) -> None:
    """Run the demo, print its tables (or its report as JSON) and write its files to `out`.

    `seconds` is how long each policy runs; `load` the offered requests as a multiple of what
    time-only can answer. Raises WrongAnswer where sharing changed an answer.
    """
    out.mkdir(parents=True, exist_ok=True)
    with bars() as progress:
        entries = zoo.load(model, tenants, seed=seed)
        making = "training models" if model == "digits" else "making models"
        exhibits = [
            trial.exhibit(entry)
            for entry in progress.track(entries, total=tenants, description=making)
        ]
        with ExitStack() as opened:
            stages = [
                opened.enter_context(
                    trial.staged(
                        policy,
                        exhibits,
                        progress.track(exhibits, description=f"{policy}: adding tenants"),
                    )
                )
                for policy in POLICIES
            ]
            asking = progress.add_task("what time-only can answer", total=None)
            capacity_rps = trial.capacity_rps(stages[0])
            progress.update(asking, total=1, completed=1)
            rounds = trial.rounds(exhibits, seconds=seconds, rps=load * capacity_rps, seed=seed)
            runs = _take_turns(stages, rounds, progress)
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


def _take_turns(
    stages: Sequence[trial.Stage], rounds: Sequence[Sequence[Arrival]], progress: Progress
) -> list[trial.Run]:
    task = progress.add_task("load", total=len(rounds) * len(stages))
    sent: list[list[list[Sent]]] = [[] for _ in stages]
    for due in rounds:
        for stage, so_far in zip(stages, sent, strict=True):
            progress.update(task, description=f"load: {stage.policy}")
            so_far.append(trial.send(stage, due))
            progress.advance(task)
    return [trial.conclude(stage, so_far) for stage, so_far in zip(stages, sent, strict=True)]
