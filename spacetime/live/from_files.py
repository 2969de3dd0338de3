"""A session made from files: of a plan, of profiles, or of neither; and its tenants, of a workload.

The commands `run` and `serve` open their sessions here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacetime.devices import facts
from spacetime.errors import PlanError
from spacetime.live.controller_thread import LiveController
from spacetime.live.planned_session import LEAST_BATCH, PlannedSession
from spacetime.models.loading import LoadedModel, tried
from spacetime.plan import Plan, PlanOptions
from spacetime.plan.plan_json import read_plan
from spacetime.planners.registry import planner
from spacetime.profiles import profile_file
from spacetime.profiles.profile import Profiles
from spacetime.session.session import Session
from spacetime.workload.workload import Workload

MOST_BATCH = 256  # the largest batch that a session prepares its tenants for


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
    points = profile_file.read(profiles)
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
    return planner("spacetime").plan(load, points, facts.device(points.device), options)


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


def admit(session: Session, load: Workload, models: Mapping[str, LoadedModel]) -> None:
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
