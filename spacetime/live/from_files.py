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
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.workload import workload
from spacetime.workload.workload import Workload

MOST_BATCH = 256  # the largest batch that a session prepares its tenants for


def watching(session: Session, **options: Any) -> LiveController:
    """A controller of a session that has a plan; options: LiveController's. Raises PlanError."""
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
    """A session for a workload.

    With `plan` and `profiles` it runs that plan; with `profiles` alone, a plan that is made now;
    with neither, a policy without a plan. options: those the plan is made and checked under. audit:
    Session's options `audit` and `audit_stop`. The others are those of Session and PlannedSession.
    Raises PlanError naming the option, InfeasibleError, and what the session raises.
    """
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
    in_force = read_plan(plan) if plan is not None else planned(load, points, options)
    return PlannedSession(
        in_force,
        load,
        points,
        device=device,
        gpu=gpu,
        policy=policy,
        options=replace(options, gpus=None),  # the plan may have fewer devices than were allowed
        max_batch=max_batch or _largest(points, load, in_force),
        timeline=timeline,
        record=record,
        isolation=isolation,
        **audit,
    )


def _largest(points: Profiles, load: Workload, plan: Plan) -> int:
    """The largest batch that this plan, or one made later from the same points, may have."""
    models = {tenant.model for tenant in load.tenants}
    measured = max((point.batch for point in points if point.model in models), default=1)
    planned_batches = (assignment.batch for _, _, assignment in plan)
    return max(min(measured, MOST_BATCH), *planned_batches, LEAST_BATCH)


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
    here = {
        partition.id
        for gpu in session.plan.gpus
        if gpu.id == session.placement.gpu
        for partition in gpu.partitions
    }

    def share(tenant: str) -> float:
        routes = session.plan.routes(tenant)
        return sum(part for partition, part in routes.items() if partition in here)

    tenants = [tenant for tenant in load.tenants if tenant.name in session.placement.served]
    return replace(
        load,
        tenants=tuple(
            replace(tenant, rate_rps=tenant.rate_rps * share(tenant.name)) for tenant in tenants
        ),
    )


def admit(session: Session, load: Workload, models: Mapping[str, LoadedModel]) -> None:
    """Makes every tenant of the workload a tenant of the session."""
    for declared in load.tenants:
        add_declared(session, declared, models[declared.name])


def add_declared(
    session: Session, declared: workload.Tenant, model: LoadedModel, **more: Any
) -> Tenant:
    """Makes a tenant of a workload one of the session's; more: options of `Session.add` beside.

    Raises what `Session.add` raises, and WorkloadError where the example values do not suit.
    """
    with tried(declared):
        return session.add(
            model.module,
            example_inputs=model.example_inputs,
            name=declared.name,
            slo_ms=declared.slo_ms,
            rate_rps=declared.rate_rps,
            priority=declared.priority,
            weight=declared.weight,
            batchable=declared.batchable,
            **more,
        )
