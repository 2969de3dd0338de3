"""A workload's models live on a device, its arrivals sent in an open loop.

Requests are reported as their sender saw them: latency counts from when a request was due, and
every request sent is answered, dropped for a reason, or has failed. Interrupted or terminated, a
run answers what was accepted and reports what has been.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from spacetime.interruption import Interruption
from spacetime.live.controller_thread import LiveController, summary
from spacetime.models.loading import LoadedModel
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload.openloop import Sent, Target, drive
from spacetime.workload.workload import Arrival, Workload

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What came of a run: its report (format spacetime.report/1), its timeline as Chrome trace
    events, the signal that cut it short, and the error of the first request that failed."""

    report: dict[str, Any]
    timeline: list[dict[str, Any]]
    interrupted: signal.Signals | None
    error: BaseException | None


def run_live(
    session: Session,
    load: Workload,
    models: Mapping[str, LoadedModel],
    *,
    seconds: float,
    console: Console | None = None,
    controller: LiveController | None = None,
) -> LiveRun:
    """Sends the workload's arrivals for `seconds`, then waits for what was accepted; a `controller`
    watches meanwhile.

    Ctrl-C and SIGTERM end the sending; what was accepted still ends, and is reported. The session
    is closed.
    """
    targets = [target(session.tenants[tenant.name], models[tenant.name]) for tenant in load.tenants]
    sent: list[Sent] = []
    start_ns = time.monotonic_ns()
    schedule = load.schedule(duration_ns=round(seconds * SECOND))
    with Interruption() as stop:
        with (
            suppress(KeyboardInterrupt),
            _progress(console) as progress,
            controller or nullcontext(),
        ):
            shown = _shown(schedule, progress, seconds)
            drive(targets, shown, into=sent, keep=False, interruption=stop)
        session.close(drain=True)
    report = _report(session, load, sent)
    report["run"] = {
        "device": session.device.name,
        "policy": session.policy_name,
        "arrivals": load.arrivals.process,
        "asked_seconds": seconds,
        "interrupted": stop.number is not None,
        "sent_late_ms": {
            f"p{p}": _percentile_ms([request.late_ns for request in sent], p) for p in PERCENTILES
        },
    }
    if controller is not None:
        report["controller"] = {
            "rates": controller.rates,
            "events": summary(controller.events, start_ns),
        }
    error = next((request.error for request in sent if request.error is not None), None)
    return LiveRun(report, session.timeline(), stop.number, error)


def target(tenant: Tenant, model: LoadedModel) -> Target:
    """A tenant's side of an open loop, its requests in turn."""
    return Target(lambda request: tenant.submit(*request), model.requests)


def _progress(console: Console | None) -> AbstractContextManager[Progress | None]:
    if console is None or not console.is_terminal:
        return nullcontext()
    return Progress(
        TextColumn("running"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=4,
    )


def _shown(
    schedule: Iterable[Arrival], progress: Progress | None, seconds: float
) -> Iterator[Arrival]:
    task = None if progress is None else progress.add_task("", total=seconds)
    for arrival in schedule:
        if progress is not None and task is not None:
            progress.update(task, completed=arrival.time_ns / SECOND)
        yield arrival


def _report(session: Session, load: Workload, sent: Sequence[Sent]) -> dict[str, Any]:
    """The session's report, with what was seen of the requests from outside."""
    report = session.report()
    slo_ms = [tenant.slo_ms for tenant in load.tenants]
    by_tenant: list[list[Sent]] = [[] for _ in load.tenants]
    for request in sent:
        by_tenant[request.tenant].append(request)
    for tenant, requests in zip(load.tenants, by_tenant, strict=True):
        outside = _from_outside(requests, slo_ms, report["seconds"])
        report["tenants"][tenant.name] |= outside | {"slo_ms": tenant.slo_ms}
    report["overall"] |= _from_outside(sent, slo_ms, report["seconds"])
    return report


def _from_outside(sent: Sequence[Sent], slo_ms: Sequence[float], seconds: float) -> dict[str, Any]:
    took = [(r.latency_ns, r.tenant) for r in sent if r.latency_ns is not None]
    met = sum(ms_from_ns(ns) <= slo_ms[tenant] for ns, tenant in took)
    times = [ns for ns, _ in took]
    return {
        "offered": len(sent),
        "completed": len(took),
        "dropped": dict(Counter(r.dropped for r in sent if r.dropped is not None)),
        "attainment": met / len(sent) if sent else None,
        "latency_ms": {f"p{p}": _percentile_ms(times, p) for p in PERCENTILES}
        | {
            "max": ms_from_ns(max(times, default=0)),
            "mean": ms_from_ns(float(np.mean(times or [0]))),
        },
        "throughput_rps": len(took) / seconds if seconds else None,
        "goodput_rps": met / seconds if seconds else None,
    }


def _percentile_ms(times_ns: Sequence[int], percent: float) -> float:
    return ms_from_ns(float(np.percentile(times_ns, percent))) if times_ns else 0.0
