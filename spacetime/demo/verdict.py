"""What the trials showed: answers checked, accuracy, one table, and the files behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spacetime.demo.trial import Exhibit, PolicyRun
from spacetime.errors import SpacetimeError
from spacetime.plots import policies as plot
from spacetime.units import MS
from spacetime.workload.openloop import Sent

FORMAT = "spacetime.demo/1"
RTOL, ATOL = 1e-3, 1e-4
TIMELINE_SECONDS = 2  # of each policy: more only makes the file slow to open


class WrongAnswer(SpacetimeError):
    """A tenant's answer differs from what its model returns when run alone."""


def judge(
    exhibits: Sequence[Exhibit],
    runs: Sequence[PolicyRun],
    setting: Mapping[str, Any],
) -> dict[str, Any]:
    """Check every answer of every run, and report what the policies made of the load."""
    for run in runs:
        for tenant, exhibit in enumerate(exhibits):
            _check(run.row.policy, exhibit, [sent for sent in run.sent if sent.tenant == tenant])
    baseline = runs[0].row.throughput_rps
    return {
        "format": FORMAT,
        **setting,
        "slo_ms": sorted({exhibit.slo_ms for exhibit in exhibits}),
        "answers_checked": sum(sent.answer is not None for run in runs for sent in run.sent),
        "tenants": [
            _tenant(exhibit, [sent for sent in runs[-1].sent if sent.tenant == tenant])
            for tenant, exhibit in enumerate(exhibits)
        ],
        "policies": [
            asdict(run.row)
            | {"speed_up": run.row.throughput_rps / baseline if baseline else None}
            | {"explain": run.explain, "session": run.session}
            for run in runs
        ],
    }


def _check(policy: str, exhibit: Exhibit, sent: Sequence[Sent]) -> None:
    """Every answer is close to the one alone, and where classes are known names the same class."""
    answered = [request for request in sent if request.answer is not None]
    if not answered:
        return
    shared = torch.cat([request.answer for request in answered])
    alone = exhibit.alone[torch.tensor([request.item for request in answered])]
    wrong = ~torch.isclose(shared, alone, rtol=RTOL, atol=ATOL).all(1)
    if exhibit.entry.labels is not None:
        wrong |= shared.argmax(1) != alone.argmax(1)
    if wrong.any():
        raise WrongAnswer(
            f"tenant {exhibit.entry.name}: {int(wrong.sum())} of {len(wrong)} answers under "
            f"{policy} differ from the model run alone, by up to {_error(shared, alone):.3g}"
        )


def _error(shared: Tensor, alone: Tensor) -> float:
    return float((shared - alone).abs().nan_to_num(nan=float("inf")).max())


def _tenant(exhibit: Exhibit, sent: Sequence[Sent]) -> dict[str, Any]:
    """Accuracy over the pictures that were answered, shared and alone; None without labels."""
    facts: dict[str, Any] = {"name": exhibit.entry.name, "pictures": 0}
    labels = exhibit.entry.labels
    answers = {request.item: request.answer for request in sent if request.answer is not None}
    if labels is None or not answers:
        return facts | {"accuracy_alone": None, "accuracy_shared": None}
    items = torch.tensor(sorted(answers))
    shared = torch.cat([answers[item] for item in sorted(answers)]).argmax(1)
    return facts | {
        "pictures": len(items),
        "accuracy_alone": float((exhibit.alone[items].argmax(1) == labels[items]).float().mean()),
        "accuracy_shared": float((shared == labels[items]).float().mean()),
    }


def write(out: Path, report: Mapping[str, Any], runs: Sequence[PolicyRun]) -> list[str]:
    """Write the report, the timeline and the picture; return their paths."""
    report_path, timeline_path, picture_path = (
        out / name for name in ("report.json", "timeline.json", "policies.png")
    )
    report_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    events = [event for place, run in enumerate(runs) for event in _track(place, run)]
    timeline_path.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    curves = [
        plot.PolicyCurve(
            name=run.row.policy,
            throughput_rps=run.row.throughput_rps,
            goodput_rps=run.row.goodput_rps,
            offered=len(run.sent),
            latencies_ms=[sent.latency_ns / MS for sent in run.sent if sent.latency_ns is not None],
        )
        for run in runs
    ]
    plot.policies(
        picture_path,
        curves,
        title=f"{len(report['tenants'])} tenants ({report['model']}) on one device, "
        f"{report['load']:g} × what time-only can answer",
        offered_rps=runs[0].row.offered_rps,
        slo_ms=max(report["slo_ms"]),
    )
    return [str(path) for path in (report_path, timeline_path, picture_path)]


def _track(place: int, run: PolicyRun) -> list[dict[str, Any]]:
    """A policy's events as a process of its own, all policies starting at time 0."""
    timed = [event for event in run.events if "ts" in event]
    start_us = min((event["ts"] for event in timed), default=0.0)
    title = {"ph": "M", "name": "process_name", "args": {"name": run.row.policy}}
    kept = [event for event in run.events if "ts" not in event] + [
        event | {"ts": event["ts"] - start_us}
        for event in timed
        if event["ts"] - start_us < TIMELINE_SECONDS * 1e6
    ]
    return [event | {"pid": place + 1} for event in (title, *kept)]
