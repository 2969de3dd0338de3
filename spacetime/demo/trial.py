"""Trials: the same models and the same arrivals under one policy after another.

The load is open loop and a multiple of what time sharing can answer, measured first. What counts is
seen from outside: latency from when a request was due to when its future was resolved.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spacetime.demo.zoo.exhibits import ZooModel, one_thread
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.units import MS, SECOND
from spacetime.workload.openloop import Sent, Target, drive
from spacetime.workload.workload import Arrival, Workload, WorkloadError
from spacetime.workload.workload import Tenant as WorkloadTenant

MIN_SLO_MS = 20.0
SLO_PER_SOLO = 10  # objective: this many times the latency of a model that has a core to itself
WARM_UP_SECONDS = 0.2  # first launches build what later ones reuse
CAPACITY_SECONDS = 0.5
CAPACITY_TRIES = 3
IN_FLIGHT = 2  # of each tenant, in the closed loop
PATIENCE_MS = 60_000.0
ROUND_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A model, its requests one by one, what it answers to each when run alone, and its SLO."""

    entry: ZooModel
    requests: Sequence[Tensor]
    alone: Tensor
    slo_ms: float


@dataclass(frozen=True, slots=True)
class PolicyStage:
    """An open session of one policy with a tenant for each exhibit, warmed up."""

    policy: str
    session: Session
    exhibits: Sequence[Exhibit]
    tenants: Sequence[Tenant]

    @property
    def pairs(self) -> list[tuple[Tenant, Exhibit]]:
        return list(zip(self.tenants, self.exhibits, strict=True))


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What a policy made of the load. Rates count from the first due time to the last answer."""

    policy: str
    offered_rps: float
    throughput_rps: float
    goodput_rps: float
    p50_ms: float | None
    p99_ms: float | None
    attainment: float
    tenants_per_launch: float | None
    dropped: dict[str, int]
    sender_late_p99_ms: float


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One policy's row and what it was made from."""

    row: PolicyRow
    sent: list[Sent]
    events: list[dict[str, Any]]
    session: dict[str, Any]
    explain: str


def exhibit(entry: ZooModel) -> Exhibit:
    """PolicyRun every request of a model's pool alone: what any policy's answers are held against.

    The objective is SLO_PER_SOLO times the shortest of these runs (whatever else runs on the
    machine only makes them longer), at least MIN_SLO_MS.
    """
    requests = entry.pool.unsqueeze(1).unbind()
    with torch.inference_mode(), one_thread():
        answers, seconds = zip(*(_timed(entry.model, request) for request in requests), strict=True)
    slo_ms = max(MIN_SLO_MS, SLO_PER_SOLO * 1000 * min(seconds))
    return Exhibit(entry, requests, torch.cat(answers), round(slo_ms, 1))


def _timed(model: nn.Module, request: Tensor) -> tuple[Tensor, float]:
    start = time.perf_counter()
    answer = model(request)
    return answer, time.perf_counter() - start


@contextmanager
def staged(
    policy: str, exhibits: Sequence[Exhibit], steps: Iterable[Exhibit]
) -> Iterator[PolicyStage]:
    """Open a session of `policy`, add every exhibit as a tenant and warm up.

    `steps` are the exhibits again, wrapped in whatever shows progress.
    """
    with Session("cpu", policy=policy, timeline=True) as session:
        with one_thread():  # what add runs on this thread; lanes keep their own number
            tenants = [_add(session, exhibit) for exhibit in steps]
        stage = PolicyStage(policy, session, exhibits, tenants)
        _in_turn(stage, seconds=WARM_UP_SECONDS)
        yield stage


def _add(session: Session, exhibit: Exhibit) -> Tenant:
    return session.add(
        exhibit.entry.model,
        example_inputs=(exhibit.requests[0],),
        slo_ms=exhibit.slo_ms,
        name=exhibit.entry.name,
    )


def capacity_rps(stage: PolicyStage) -> float:
    """How many requests a second the stage answers in a closed loop over all its tenants.

    The best of a few tries: whatever else runs on the machine only makes it less.
    """
    return max(_in_turn(stage, seconds=CAPACITY_SECONDS) for _ in range(CAPACITY_TRIES))


def _in_turn(stage: PolicyStage, *, seconds: float) -> float:
    """Closed loop: always a few requests of every tenant in flight; answers a second."""
    pairs = cycle(stage.pairs)
    start_ns = time.monotonic_ns()
    waiting = deque(_patient(*next(pairs)) for _ in range(IN_FLIGHT * len(stage.tenants)))
    answered = 0
    while (now_ns := time.monotonic_ns()) - start_ns < seconds * SECOND:
        waiting.popleft().result()
        waiting.append(_patient(*next(pairs)))
        answered += 1
    for future in waiting:
        future.result()
    stage.session.timeline()  # rehearsals are not part of the picture
    return answered / (now_ns - start_ns) * SECOND


def _patient(tenant: Tenant, exhibit: Exhibit) -> Future[Any]:
    return tenant.submit(exhibit.requests[0], deadline_ms=PATIENCE_MS)


def rounds(
    exhibits: Sequence[Exhibit], *, seconds: float, rps: float, seed: int
) -> list[list[Arrival]]:
    """Poisson arrivals, `rps` requests a second in all and the same rate for each tenant.

    They are cut into rounds, each from time 0, for the policies to take turns: a disturbance of the
    machine then meets all of them and not one.
    """
    tenants = tuple(
        WorkloadTenant(
            name=exhibit.entry.name,
            model="zoo",
            slo_ms=exhibit.slo_ms,
            rate_rps=rps / len(exhibits),
        )
        for exhibit in exhibits
    )
    schedule = Workload(tenants=tenants, seed=seed).schedule(duration_ns=round(seconds * SECOND))
    length_ns = round(seconds * SECOND / max(1, round(seconds / ROUND_SECONDS))) + 1
    cut = [
        [Arrival(time_ns % length_ns, tenant) for time_ns, tenant in due]
        for _, due in groupby(schedule, key=lambda arrival: arrival.time_ns // length_ns)
    ]
    if not cut:
        raise WorkloadError("seconds", "too short for a single request; give more, or more load")
    return cut


def send(stage: PolicyStage, due: Iterable[Arrival]) -> list[Sent]:
    """Drive one round against a stage."""
    return drive([Target(tenant.submit, exhibit.requests) for tenant, exhibit in stage.pairs], due)


def conclude(stage: PolicyStage, sent: Sequence[Sequence[Sent]]) -> PolicyRun:
    """What all rounds against a stage came to."""
    events = stage.session.timeline()
    slo_ms = [exhibit.slo_ms for exhibit in stage.exhibits]
    return PolicyRun(
        row=row_of(stage.policy, sent, slo_ms, events),
        sent=[request for due in sent for request in due],
        events=events,
        session=stage.session.report(),
        explain=stage.session.explain(),
    )


def row_of(
    policy: str,
    rounds_sent: Sequence[Sequence[Sent]],
    slo_ms: Sequence[float],
    events: Sequence[dict[str, Any]],
) -> PolicyRow:
    """The table's row; a round lasts from its first due time to its last answer."""
    launches = [event["args"]["tenants"] for event in events if event["ph"] == "X"]
    seconds = sum(map(_lasted_ns, rounds_sent)) / SECOND
    sent = [request for due in rounds_sent for request in due]
    answered = [(request, request.latency_ns) for request in sent if request.latency_ns is not None]
    met = sum(latency_ns <= slo_ms[request.tenant] * MS for request, latency_ns in answered)
    latencies_ms = [latency_ns / MS for _, latency_ns in answered]
    p50, p99 = map(float, np.percentile(latencies_ms, (50, 99))) if answered else (None, None)
    return PolicyRow(
        policy=policy,
        offered_rps=len(sent) / seconds,
        throughput_rps=len(answered) / seconds,
        goodput_rps=met / seconds,
        p50_ms=p50,
        p99_ms=p99,
        attainment=met / len(sent),
        tenants_per_launch=sum(launches) / len(launches) if launches else None,
        dropped=dict(Counter(request.dropped for request in sent if request.dropped is not None)),
        sender_late_p99_ms=float(np.percentile([request.late_ns / MS for request in sent], 99)),
    )


def _lasted_ns(sent: Sequence[Sent]) -> int:
    return max(request.due_ns + (request.latency_ns or 0) for request in sent)
