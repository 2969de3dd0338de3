"""`spacetime demo`: real models, the same arrivals under three policies, every answer checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from spacetime.demo import trial, verdict
from spacetime.demo.zoo import exhibits as zoo
from spacetime.terminal.progress import bars
from spacetime.terminal.tables import FittedTable
from spacetime.workload.openloop import Sent
from spacetime.workload.workload import Arrival

POLICIES = ("time-only", "space-only", "space-time")
LATE_MS = 3.0  # a sender later than this is worth a remark


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """The options of `spacetime demo`.

    `seconds` is how long each policy runs, and `load` is how many requests are offered, as a
    multiple of what policy time-only can answer.
    """

    tenants: int
    seconds: float
    model: str
    load: float
    seed: int
    out: Path
    as_json: bool


def run(asked: DemoCommand) -> None:
    """Run the demo, print its tables (or its report as JSON) and write its files to `out`.

    Raises WrongAnswer where sharing changed an answer.
    """
    asked.out.mkdir(parents=True, exist_ok=True)
    with bars() as progress:
        entries = zoo.load(asked.model, asked.tenants, seed=asked.seed)
        making = "training models" if asked.model == "digits" else "making models"
        exhibits = [
            trial.exhibit(entry)
            for entry in progress.track(entries, total=asked.tenants, description=making)
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
            rps = asked.load * capacity_rps
            rounds = trial.rounds(exhibits, seconds=asked.seconds, rps=rps, seed=asked.seed)
            runs = _take_turns(stages, rounds, progress)
    setting = {
        "model": asked.model,
        "seconds": asked.seconds,
        "load": asked.load,
        "seed": asked.seed,
        "capacity_rps": capacity_rps,
    }
    report = verdict.judge(exhibits, runs, setting)
    report["files"] = verdict.write(asked.out, report, runs)
    if asked.as_json:
        print(json.dumps(report, indent=2))
    else:
        print_demo(report, Console())


def _take_turns(
    stages: Sequence[trial.PolicyStage], rounds: Sequence[Sequence[Arrival]], progress: Progress
) -> list[trial.PolicyRun]:
    task = progress.add_task("load", total=len(rounds) * len(stages))
    sent: list[list[list[Sent]]] = [[] for _ in stages]
    for due in rounds:
        for stage, so_far in zip(stages, sent, strict=True):
            progress.update(task, description=f"load: {stage.policy}")
            so_far.append(trial.send(stage, due))
            progress.advance(task)
    return [trial.conclude(stage, so_far) for stage, so_far in zip(stages, sent, strict=True)]


def print_demo(report: Mapping[str, Any], console: Console) -> None:
    """Print accuracy where it is known, the policies' table, and where the files are."""
    if labelled := [tenant for tenant in report["tenants"] if tenant["accuracy_alone"] is not None]:
        console.print(_accuracy_table(labelled))
    slo = " to ".join(f"{ms:g}" for ms in sorted({report["slo_ms"][0], report["slo_ms"][-1]}))
    console.print(
        f"\nLoad: Poisson, {report['policies'][0]['offered_rps']:,.0f} requests/s, "
        f"{report['load']:g} × the {report['capacity_rps']:,.0f}/s that time-only can answer. "
        f"Objective: {slo} ms; a request not started by then is dropped. The policies took turns."
    )
    console.print(_policy_table(report["policies"]))
    console.print(f"All {report['answers_checked']:,} answers equal those of the models run alone.")
    late_ms = max(row["sender_late_p99_ms"] for row in report["policies"])
    if late_ms > LATE_MS:
        console.print(f"The sender ran late: p99 {late_ms:.1f} ms. Latencies include it.")
    console.print("Wrote " + ", ".join(report["files"]), soft_wrap=True)


def _accuracy_table(tenants: Sequence[Mapping[str, Any]]) -> FittedTable:
    rows = [
        (
            tenant["name"], _percent(tenant["accuracy_alone"]),
            _percent(tenant["accuracy_shared"]), str(tenant["pictures"]),
        )
        for tenant in tenants
    ]  # fmt: skip
    heads = ("accuracy on held-out pictures", "alone", "shared", "pictures")
    return FittedTable(heads, rows, words=heads[:1])


def _policy_table(policies: Sequence[Mapping[str, Any]]) -> FittedTable:
    heads = (
        *("policy", "offered\n/s", "answered\n/s", "in time\n/s", "in time\n%", "p50\nms"),
        *("p99\nms", "tenants\n/launch", "speed\nup"),
    )
    rows = [
        (
            row["policy"],
            *(f"{row[key]:,.0f}" for key in ("offered_rps", "throughput_rps", "goodput_rps")),
            f"{100 * row['attainment']:.1f}",
            *(_number(row[key]) for key in ("p50_ms", "p99_ms")),
            *(_number(row[key]) for key in ("tenants_per_launch", "speed_up")),
        )
        for row in policies
    ]
    return FittedTable(heads, rows, words=("policy",))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"
