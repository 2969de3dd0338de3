"""A workload's models live on a device, its arrivals sent in an open loop.

What is reported of requests is seen from outside: latency counts from when a request was due, and
every request sent is answered, dropped for a reason, or has failed. Interrupted or terminated, a
run answers what was accepted and reports what has been.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from spacetime.devices import facts
from spacetime.errors import PlanError
from spacetime.interruption import Interruption
from spacetime.live.controller_thread import LiveController, summary
from spacetime.live.planned_session import LEAST_BATCH, PlannedSession
from spacetime.models.loading import LiveModel, tried
from spacetime.plan import Plan, PlanOptions
from spacetime.plan.plan_json import read_plan
from spacetime.planners.registry import planner as make
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload.openloop import Sent, Target, drive
from spacetime.workload.workload import Arrival, Workload

PERCENTILES = (50, 90, 99)
MOST_BATCH = 256  # that a session prepares for


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What a run gave: report (design §9), Chrome trace events, and what cut it short."""

    report: dict[str, Any]
    timeline: list[dict[str, Any]]
    interrupted: signal.Signals | None
    error: BaseException | None  # of the first request that failed


def watching(session: Session, **options: Any) -> LiveController:
    """A controller of a session that has a plan; see LiveController. Raises PlanError."""
    if not isinstance(session, PlannedSession):
        raise PlanError("--controller: give --profiles too: it makes plans from them")
    return LiveController(session, **options)


def opened(
    load: Workload,
    *,
    plan: Path | None,
    profiles: Path | None,
    gpu: int | None,
    policy: str | None,
    device: str,
    options: PlanOptions,
    isolation: str = "thread",
    max_batch: int | None = None,
    timeline: bool = True,
    record: bool = False,
    **audit: Any,
) -> Session:
    """A session of the plan; of one made now, where there are only profiles; of a policy, where
    there is neither. audit: Session's options of that name."""
    if profiles is None:
        if plan is not None:
            raise PlanError("--plan: give --profiles too: the plan is checked against them")
        if gpu is not None:
            raise PlanError("--gpu: give --plan too: without one there is no device to choose")
        return Session(
            device,
            policy=policy or "space-time",
            max_batch=max_batch or 16,
            timeline=timeline,
            record=record,
            isolation=isolation,
            **audit,
        )
    points = read_profiles(profiles)
    made = read_plan(plan) if plan is not None else planned(load, points, options)
    return PlannedSession(
        made, load, points, device=device, gpu=gpu, policy=policy,
        options=replace(options, gpus=None), max_batch=max_batch or _largest(points, load, made),
        timeline=timeline, record=record, isolation=isolation, **audit,
    )  # fmt: skip


def _largest(points: Profiles, load: Workload, made: Plan) -> int:
    """The largest batch that this plan, or one made later from the same points, may have."""
    models = {each.model for each in load.tenants}
    measured = max((p.batch for p in points if p.model in models), default=1)
    return max(min(measured, MOST_BATCH), *(each.batch for _, _, each in made), LEAST_BATCH)


def planned(load: Workload, points: Profiles, options: PlanOptions) -> Plan:
    """The plan of the default planner. Raises InfeasibleError."""
    return make("spacetime").plan(load, points, facts.device(points.device), options)


def share_of(load: Workload, session: Session) -> Workload:
    """The part of a workload that a session's device of a plan serves; all of it without a plan.

    Raises PlanError for a recorded workload of which this device serves only a part.
    """
    if not isinstance(session, PlannedSession) or len(session.plan.gpus) == 1:
        return load
    if load.arrivals.process == "trace":
        raise PlanError("arrivals: a trace is of all devices; plan for one device with --gpus 1")
    here = session.placement.served
    on = {each.id for gpu in session.plan.gpus if gpu.id == session.placement.gpu
          for each in gpu.partitions}  # fmt: skip
    return replace(load, tenants=tuple(
        replace(each, rate_rps=each.rate_rps * sum(
            part for place, part in session.plan.routes(each.name).items() if place in on
        ))
        for each in load.tenants if each.name in here
    ))  # fmt: skip


def admit(session: Session, load: Workload, models: Mapping[str, LiveModel]) -> None:
    """Makes every tenant of the workload a tenant of the session."""
    for each in load.tenants:
        with tried(each):
            session.add(
                models[each.name].module,
                example_inputs=models[each.name].example_inputs,
                name=each.name,
                slo_ms=each.slo_ms,
                rate_rps=each.rate_rps,
                priority=each.priority,
                weight=each.weight,
                batchable=each.batchable,
            )


def run_live(
    session: Session,
    load: Workload,
    models: Mapping[str, LiveModel],
    *,
    seconds: float,
    console: Console | None = None,
    controller: LiveController | None = None,
) -> LiveRun:
    """Sends the workload's arrivals for so long and waits for what was accepted; a `controller`
    watches meanwhile.

    Ctrl-C and SIGTERM end the sending; what was accepted still ends, and is reported. The session
    is closed.
    """
    targets = [target(session.tenants[each.name], models[each.name]) for each in load.tenants]
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
        "device": session.device.name, "policy": session.policy_name,
        "arrivals": load.arrivals.process, "asked_seconds": seconds,
        "interrupted": stop.number is not None,
        "sent_late_ms": {
            f"p{p}": _percentile_ms([one.late_ns for one in sent], p) for p in PERCENTILES
        },
    }  # fmt: skip
    if controller is not None:
        report["controller"] = {
            "rates": controller.rates, "events": summary(controller.events, start_ns),
        }  # fmt: skip
    error = next((one.error for one in sent if one.error is not None), None)
    return LiveRun(report, session.timeline(), stop.number, error)


def target(tenant: Tenant, model: LiveModel) -> Target:
    """A tenant's side of an open loop, its requests in turn."""
    return Target(lambda request: tenant.submit(*request), model.requests)


def _progress(console: Console | None) -> AbstractContextManager[Progress | None]:
    if console is None or not console.is_terminal:
        return nullcontext()
    return Progress(
        TextColumn("running"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True, refresh_per_second=4,
    )  # fmt: skip


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
    slo_ms = [each.slo_ms for each in load.tenants]
    by_tenant: list[list[Sent]] = [[] for _ in load.tenants]
    for one in sent:
        by_tenant[one.tenant].append(one)
    for each, own in zip(load.tenants, by_tenant, strict=True):
        seen = _seen(own, slo_ms, report["seconds"])
        report["tenants"][each.name] |= seen | {"slo_ms": each.slo_ms}
    report["overall"] |= _seen(sent, slo_ms, report["seconds"])
    return report


def _seen(sent: Sequence[Sent], slo_ms: Sequence[float], seconds: float) -> dict[str, Any]:
    took = [(one.latency_ns, one.tenant) for one in sent if one.latency_ns is not None]
    met = sum(ms_from_ns(ns) <= slo_ms[tenant] for ns, tenant in took)
    times = [ns for ns, _ in took]
    return {
        "offered": len(sent),
        "completed": len(took),
        "dropped": dict(Counter(one.dropped for one in sent if one.dropped is not None)),
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
