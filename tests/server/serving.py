"""A server of real models on loopback, in this process, on ports of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spacetime.live.controller_thread import planning_on_one
from spacetime.live.planned_session import PlannedSession
from spacetime.plan import PlanOptions
from spacetime.profiles.profile import Point, Profiles
from spacetime.server.repository import Repository
from spacetime.server.serve import Options, Server, background
from spacetime.session.session import Session
from spacetime.workload.workload import InputSpec, Tenant, Workload

HERE = Path(__file__).parent
ROW = (InputSpec((1, 3), "FP32"),)
SLO_MS = 60_000.0


def tenant(name: str, *inputs: InputSpec, **fields: Any) -> Tenant:
    given = {"slo_ms": SLO_MS, "rate_rps": 1.0, "example_inputs": inputs or ROW} | fields
    return Tenant(
        name=name,
        model=f"served_models:{fields.get('factory', name)}",
        **{key: value for key, value in given.items() if key != "factory"},
    )


TENANTS = (
    tenant("affine"),
    tenant("two", InputSpec((1, 2), "FP32", "left"), InputSpec((1, 2), "INT64", "right")),
    tenant("breaks"),
    tenant("gate"),
    tenant(
        "halves",
        InputSpec((1, 2), "FP16"),
        InputSpec((1, 2), "BF16"),
        InputSpec((1, 2), "BOOL"),
    ),
)


def planned(load: Workload) -> PlannedSession:
    """A session of a plan for this load; by its profile, all cores together serve any load."""
    cores = len(os.sched_getaffinity(0))
    points = Profiles(
        tuple(
            Point(model, f"cpu-{cores}", "cores", units, 1, 1, ms, 1000 / ms)
            for model in sorted({each.model for each in load.tenants})
            for units, ms in ((1, 2.0), (cores, 0.01))
        )
    )
    made = planning_on_one(points, points.device, PlanOptions())(load)
    return PlannedSession(made, load, points, device="cpu")


@contextmanager
def serving(
    *tenants: Tenant,
    queue: int = 1024,
    lanes: int = 2,
    opened: Callable[[Workload], Session] | None = None,
    **options: Any,
) -> Iterator[Server]:
    """A running server of these tenants, by default of all; ports are any that are free."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    load = Workload(tenants or TENANTS)
    with Session("cpu", lanes=lanes) if opened is None else opened(load) as session:
        repository = Repository(session, load, HERE, queue_limit=queue)
        repository.load_all()
        with background(Server(repository, Options(**(ports | options)))) as server:
            yield server


def settled(server: Server) -> None:
    """Returns once nothing is queued or runs; the test's own timeout if that never comes."""
    repository = server.repository
    while repository.accepted or any(
        tenant.pending for tenant in repository.session.counters().tenants.values()
    ):
        pass
