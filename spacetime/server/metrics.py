"""Metrics in Prometheus' text format: Triton's names, and a family of our own.

Written by hand because Triton's counters have no `_total`, which prometheus_client always adds;
tests read them back with its parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacetime.live.controller_thread import LANES, STEPS, LiveController
from spacetime.live.planned_session import PlannedSession
from spacetime.reports.counters import Counters, LaneCounters, TenantCounters
from spacetime.server.http import body
from spacetime.server.http.application import Send, answer_to_other_method, send_answer
from spacetime.server.http.intake import Answer, refused
from spacetime.server.model import VERSION
from spacetime.server.refusal import Refusal, RefusalKind
from spacetime.server.repository import Repository
from spacetime.server.statistics import misses
from spacetime.server.tokens import Tokens
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.version import __version__

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, object]
# Triton's reasons, of ours; a model that raises is BACKEND, a request wrong in itself OTHER.
_REASONS = {
    "deadline": "REJECTED", "shed": "REJECTED", "queue-full": "REJECTED", "cancelled": "CANCELED",
}  # fmt: skip


@dataclass(slots=True)
class Metric:
    """One metric: its name, its kind, its HELP text, and a value for each set of labels."""

    name: str
    kind: str  # counter or gauge
    help: str
    values: Sequence[tuple[Labels, float]]

    def text(self) -> str:
        """Returns the metric in Prometheus' text format, without a line end."""
        lines = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}"]
        for labels, value in self.values:
            pairs = ",".join(f'{name}="{_escaped(str(label))}"' for name, label in labels.items())
            lines.append(f"{self.name}{{{pairs}}} {value:.15g}")
        return "\n".join(lines)


def exposition(repository: Repository, controller: LiveController | None = None) -> str:
    """Returns every metric at this moment, as one text.

    controller: the controller whose re-plans are told; None where the server has none.
    """
    session = repository.session
    counted = session.counters()
    kind = session.device.kind
    facts = {"version": __version__, "policy": session.policy_name, "device": session.device.name}
    metrics = [
        Metric("spacetime_info", "gauge", "What serves.", [(facts, 1)]),
        Metric("spacetime_ready", "gauge", "Whether new requests are taken.",
               [({}, repository.ready)]),
        *_by_model(repository, counted),
        *([] if session.auditor is None else _audits(counted.tenants)),
        *_by_lane(counted.lanes, kind),
        _by_route(session, repository.models, counted.lanes),
        *([] if controller is None else _replans(controller)),
    ]  # fmt: skip
    return "\n".join(metric.text() for metric in metrics) + "\n"


def _by_model(repository: Repository, counted: Counters) -> Iterable[Metric]:
    models = {name: counts for name, counts in counted.tenants.items() if name in repository.models}
    for name, kind, text, value in _PER_MODEL:
        labelled = [({"model": m, "version": VERSION}, value(c)) for m, c in models.items()]
        yield Metric(name, kind, text, labelled)
    yield Metric(
        "nv_inference_request_failure", "counter", "Requests without an answer, by reason.",
        [
            ({"model": model, "version": VERSION, "reason": reason}, count)
            for model, counts in models.items()
            for reason, count in _failures(counts, repository.wrong(model)).items()
        ],
    )  # fmt: skip
    yield Metric(
        "spacetime_slo_miss_total", "counter", "Requests not answered in time, by reason.",
        [
            ({"model": model, "reason": reason}, count)
            for model, counts in models.items()
            for reason, count in misses(counts).items()
        ],
    )  # fmt: skip


def _audits(tenants: Mapping[str, TenantCounters]) -> Iterable[Metric]:
    """Yields what an audit found of every tenant; docs/serving.md explains them."""
    for name, kind, text, value in _PER_AUDIT:
        yield Metric(name, kind, text, [({"model": m}, value(c)) for m, c in tenants.items()])


_PER_AUDIT: tuple[tuple[str, str, str, Any], ...] = (
    ("spacetime_audit_checked_total", "counter", "Answers compared with the model run alone.",
     lambda c: c.audit.checked),
    ("spacetime_audit_differences_total", "counter", "Of them, those beyond the tolerance.",
     lambda c: c.audit.differences),
    ("spacetime_audit_skipped_total", "counter", "Not compared: the audit was behind.",
     lambda c: c.audit.skipped),
    ("spacetime_audit_unsure_total", "counter", "Not compared: rounding decides the answer.",
     lambda c: c.audit.unsure),
    ("spacetime_audit_worst_difference", "gauge", "The largest relative difference so far.",
     lambda c: c.audit.worst),
    ("spacetime_apart", "gauge", "Whether its requests run alone since an audit's difference.",
     lambda c: int(c.apart)),
)  # fmt: skip


def _us(ns: float) -> float:
    return ns / 1e3


_PER_MODEL: tuple[tuple[str, str, str, Any], ...] = (
    ("nv_inference_request_success", "counter", "Requests answered.", lambda c: c.completed),
    ("nv_inference_count", "counter", "Samples whose launch has started.", lambda c: c.samples),
    ("nv_inference_exec_count", "counter", "Launches that held the model.", lambda c: c.launches),
    ("nv_inference_request_duration_us", "counter", "Arrival to end, of answered requests.",
     lambda c: _us(c.latency_ns)),
    ("nv_inference_queue_duration_us", "counter", "Arrival to start, of answered requests.",
     lambda c: _us(c.wait_ns)),
    ("nv_inference_compute_input_duration_us", "counter", "Always 0: compute_infer includes it.",
     lambda c: 0),
    ("nv_inference_compute_infer_duration_us", "counter", "Start to end, of answered requests.",
     lambda c: _us(max(0, c.latency_ns - c.wait_ns))),
    ("nv_inference_compute_output_duration_us", "counter", "Always 0: compute_infer includes it.",
     lambda c: 0),
    ("nv_inference_pending_request_count", "gauge", "Accepted requests that have not ended.",
     lambda c: c.pending),
    ("spacetime_slo_met_total", "counter", "Requests answered in time.", lambda c: c.met),
    ("spacetime_latency_p99_seconds", "gauge", "Arrival to end, since the model was loaded.",
     lambda c: c.p99_ns / 1e9),
)  # fmt: skip


def _failures(counts: TenantCounters, wrong: int) -> dict[str, int]:
    """Returns requests without an answer by Triton's reasons; `wrong` were refused as invalid."""
    failed = {"REJECTED": counts.refused, "CANCELED": 0, "BACKEND": counts.failed, "OTHER": wrong}
    for reason, count in counts.dropped.items():
        failed[_REASONS.get(reason, "OTHER")] += count
    return failed


def _by_lane(lanes: Iterable[LaneCounters], kind: str) -> Iterable[Metric]:
    numbered = list(enumerate(lanes))
    for name, metric_kind, text, value in _PER_LANE:
        labelled = [({"lane": n, "kind": kind}, value(lane)) for n, lane in numbered]
        yield Metric(name, metric_kind, text, labelled)


_PER_LANE: tuple[tuple[str, str, str, Any], ...] = (
    ("spacetime_units", "gauge", "Cores or SMs granted to the lane; 0 while no plan uses it.",
     lambda lane: lane.granted),
    ("spacetime_units_used_seconds_total", "counter", "Units times the seconds a launch held them.",
     lambda lane: lane.size * lane.busy_ns / 1e9),
    ("spacetime_launches_total", "counter", "Launches.", lambda lane: lane.launches),
    ("spacetime_launch_tenants_total", "counter", "Tenants of each launch, summed.",
     lambda lane: lane.tenants),
    ("spacetime_launch_samples_total", "counter", "Samples of each launch, summed.",
     lambda lane: lane.samples),
    ("spacetime_launch_padding_total", "counter", "Rows that only filled a bucket.",
     lambda lane: lane.padding),
)  # fmt: skip


def _by_route(session: Session, models: Iterable[str], lanes: Sequence[LaneCounters]) -> Metric:
    """Returns the fraction of each model's requests that goes to each lane."""
    fractions: list[tuple[Labels, float]] = []
    for model in models:
        if (tenant := session.tenants.get(model)) is None:
            continue
        for lane, fraction in routes(session, tenant).items():
            if lanes[lane].granted:
                fractions.append(({"model": model, "lane": lane}, fraction))
    text = "Part of the model's requests that goes to the lane; 0: it is chosen for each request."
    return Metric("spacetime_route_share", "gauge", text, fractions)


def routes(session: Session, tenant: Tenant) -> Mapping[int, float]:
    """Returns the lanes that run a tenant, each with the fraction of its requests that goes there.

    Every fraction is 0 where the policy chooses a lane for each request.
    """
    route = session.policy.route
    if route == "weighted" and isinstance(session, PlannedSession):
        weights = session.shares(tenant.name)
        return {lane: weight / sum(weights) for lane, weight in enumerate(weights) if weight}
    if route in {"weighted", "pinned"}:
        return {tenant.lane: 1.0}
    return dict.fromkeys(range(len(session.partitions)), 0.0)


def _replans(controller: LiveController) -> Iterable[Metric]:
    """Yields what a controller did.

    Labels take the few words of the controller's enums, so the number of series is bounded.
    """
    tally = controller.tally
    replans = [
        ({"outcome": outcome, "reason": cause}, count)
        for (outcome, cause), count in tally.replans.copy().items()
    ]
    lanes = [({"what": what}, tally.lanes[what]) for what in LANES]
    seconds = [({"step": step}, tally.seconds.get(step, 0.0)) for step in ("plan", *STEPS)]
    last: list[tuple[Labels, float]] = [] if tally.last_s is None else [({}, tally.last_s)]
    planned = [({"model": name}, rate) for name, rate in controller.planned.items()]
    estimated = [({"model": name}, rate) for name, rate in controller.rates.items()]
    outcomes = "move, stay, refused"
    yield Metric("spacetime_replans_total", "counter", f"Plans asked for; {outcomes}.", replans)
    yield Metric("spacetime_move_lanes_total", "counter", "Lanes opened, kept, drained.", lanes)
    yield Metric("spacetime_replan_seconds_total", "counter", "Seconds of each step.", seconds)
    for name, text, values in (
        ("last_replan_timestamp_seconds", "When a plan was last asked for.", last),
        ("controller_running", "Whether the load is watched.", [({}, controller.failure is None)]),
        ("planned_units", "Cores or SMs the plan in force uses.", [({}, controller.units)]),
        ("planned_samples_per_second", "What the plan in force serves.", planned),
        ("estimated_samples_per_second", "The load as the controller sees it.", estimated),
    ):
        yield Metric(f"spacetime_{name}", "gauge", text, values)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class MetricsApplication:
    """Answers GET /metrics, as an ASGI application on a port of its own."""

    def __init__(
        self, repository: Repository, tokens: Tokens, controller: LiveController | None = None
    ) -> None:
        self._repository = repository
        self._tokens = tokens
        self._controller = controller

    async def __call__(self, scope: body.Message, receive: body.Receive, send: Send) -> None:
        """Answers one request; whatever is no HTTP request is ignored."""
        if scope["type"] != "http":
            return
        try:
            status, headers, pieces = self._answer(scope)
        except Refusal as refusal:
            status, headers, pieces = refused(refusal)
        await send_answer(send, status, headers, pieces)

    def _answer(self, scope: body.Message) -> Answer:
        self._tokens.check(dict(scope["headers"]).get(b"authorization"))
        if scope["path"].rstrip("/") != "/metrics":
            raise Refusal(RefusalKind.UNKNOWN, "metrics are at /metrics")
        if (other := answer_to_other_method(scope["method"], "GET")) is not None:
            return other
        text = exposition(self._repository, self._controller).encode()
        return 200, [(b"content-type", CONTENT_TYPE)], [text]
