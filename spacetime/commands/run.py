"""`spacetime run`: a workload live on a device: its report on the terminal and in files."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.commands.tables import percent, tenants_table
from spacetime.live.from_files import admit, opened, share_of, watching
from spacetime.live.run import LiveRun, run_live
from spacetime.models.loading import load_models
from spacetime.plan import PlanOptions
from spacetime.session.session import Session
from spacetime.workload import workload_file


def from_options(
    *,
    workload: Path,
    plan: Path | None,
    profiles: Path | None,
    gpu: int | None,
    policy: str | None,
    device: str,
    isolation: str,
    duration: float,
    max_procs: int,
    max_utilisation: float,
    controller: bool,
    period: float,
    explain: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Runs it, shows it, writes report.json, timeline.json, run.recording into `out`.

    Raises KeyboardInterrupt after the report of a run that was interrupted, SystemExit after that
    of one that was terminated; after that of one in which a request failed what it failed with;
    and what reading, opening and writing raise.
    """
    console = Console(stderr=as_json)
    load = workload_file.read(workload)
    models = load_models(load, workload.parent)
    options = PlanOptions(gpus=1, max_procs=max_procs, max_utilisation=max_utilisation)
    with opened(
        load,
        plan=plan,
        profiles=profiles,
        gpu=gpu,
        policy=policy,
        device=device,
        isolation=isolation,
        options=options,
        record=out is not None,
    ) as session:
        load = share_of(load, session)
        with console.status("preparing models"):
            admit(session, load, models)
        if explain:
            console.print(session.explain(), highlight=False, markup=False, soft_wrap=True)
        watch = watching(session, period_s=period) if controller else None
        run = run_live(session, load, models, seconds=duration, console=console, controller=watch)
    try:
        if as_json:
            print(json.dumps(run.report, indent=2))
        else:
            show(run.report, Console())
    finally:  # where one of the two finds a disk full, the report is in the other
        if out is not None:
            _write(run, session, out)
    if run.interrupted == signal.SIGTERM:
        raise SystemExit(128 + run.interrupted)
    if run.interrupted is not None:
        raise KeyboardInterrupt
    if run.error is not None:
        raise run.error


def _write(run: LiveRun, session: Session, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(run.report, indent=2), encoding="utf-8")
    events = json.dumps({"traceEvents": run.timeline})
    (out / "timeline.json").write_text(events, encoding="utf-8")
    session.recording().save(out / "run.recording")


def show(report: Mapping[str, Any], console: Console) -> None:
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
