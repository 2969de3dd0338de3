"""`spacetime run`: a workload live on a device: its report on the terminal and in files."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.live.from_files import admit, opened, share_of, watching
from spacetime.live.run import LiveRun, run_live
from spacetime.models.loading import load_models
from spacetime.plan import PlanOptions
from spacetime.session.session import Session
from spacetime.terminal.report_tables import percent, tenants_table
from spacetime.workload.workload_file import read_workload


@dataclass(frozen=True, kw_only=True)
class RunCommand:
    """The options of `spacetime run`. `duration` and `period` are in seconds."""

    workload: Path
    plan: Path | None
    profiles: Path | None
    gpu: int | None
    policy: str | None
    device: str
    isolation: str
    duration: float
    max_procs: int
    max_utilisation: float
    controller: bool
    period: float
    explain: bool
    out: Path | None
    as_json: bool


def run(asked: RunCommand) -> None:
    """Runs the workload, prints its report, writes report, timeline and recording into `out`.

    Raises KeyboardInterrupt after the report of a run that was interrupted, SystemExit after that
    of one that was terminated; after that of one in which a request failed what it failed with;
    and what reading, opening and writing raise.
    """
    live, session = _sent(asked, Console(stderr=asked.as_json))
    try:
        if asked.as_json:
            print(json.dumps(live.report, indent=2))
        else:
            print_run(live.report, Console())
    finally:  # where one of the two finds a disk full, the report is in the other
        if asked.out is not None:
            _write(live, session, asked.out)
    if live.interrupted == signal.SIGTERM:
        raise SystemExit(128 + live.interrupted)
    if live.interrupted is not None:
        raise KeyboardInterrupt
    if live.error is not None:
        raise live.error


def _sent(asked: RunCommand, console: Console) -> tuple[LiveRun, Session]:
    """The run once all its requests have ended, and the session that served them, closed."""
    load = read_workload(asked.workload)
    models = load_models(load, asked.workload.parent)
    options = PlanOptions(gpus=1, max_procs=asked.max_procs, max_utilisation=asked.max_utilisation)
    with opened(
        load,
        plan=asked.plan,
        profiles=asked.profiles,
        gpu=asked.gpu,
        policy=asked.policy,
        device=asked.device,
        isolation=asked.isolation,
        options=options,
        record=asked.out is not None,
    ) as session:
        load = share_of(load, session)
        with console.status("preparing models"):
            admit(session, load, models)
        if asked.explain:
            console.print(session.explain(), highlight=False, markup=False, soft_wrap=True)
        watch = watching(session, period_s=asked.period) if asked.controller else None
        live = run_live(
            session, load, models, seconds=asked.duration, console=console, controller=watch
        )
    return live, session


def _write(live: LiveRun, session: Session, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(live.report, indent=2), encoding="utf-8")
    events = json.dumps({"traceEvents": live.timeline})
    (out / "timeline.json").write_text(events, encoding="utf-8")
    session.recording().save(out / "run.recording")


def print_run(report: Mapping[str, Any], console: Console) -> None:
    """A table by tenant, one by partition, and the sums."""
    console.print(tenants_table(report))
    overall, run = report["overall"], report["run"]
    parts = ", ".join(
        f"{row.get('id', f'lane {n}')} ({row['units']} {row['kind']}) "
        f"busy {percent(row['utilisation'])}"
        for n, row in enumerate(report["partitions"])
    )
    dropped = ", ".join(f"{count:,} {why}" for why, count in overall["dropped"].items())
    console.print(
        f"{run['device']}, policy {run['policy']}, {run['arrivals']} arrivals for "
        f"{report['seconds']:.1f} s{' (interrupted)' if run['interrupted'] else ''}: "
        f"{overall['offered']:,} requests, {overall['completed']:,} answered, "
        f"{dropped or 'none'} dropped, {percent(overall['attainment'])} in time\n{parts}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for event in report.get("controller", {}).get("events", ()):
        took = event.get("prepare_ms", 0) + event.get("switch_ms", 0) + event.get("drain_ms", 0)
        moved = f", moved in {took:.1f} ms" if event["outcome"] == "move" else ""
        console.print(
            f"controller at {event['at_s']:.1f} s: {event['outcome']}: {event['why']} (planned in "
            f"{event['plan_ms']:.0f} ms{moved})", highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
