"""The report and the timeline of a simulated plan as JSON, `spacetime.report/1`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from spacetime.devices.facts import device
from spacetime.errors import UnsupportedError
from spacetime.plan import PartitionPlan, Plan
from spacetime.reports.report import FORMAT, counted, launched, total
from spacetime.reports.timeline import chrome_events
from spacetime.simulation.fixed_plan import PlanRun, Replication
from spacetime.simulation.interval import interval
from spacetime.simulation.simulator import merged
from spacetime.units import SECOND, ms_from_ns


def plan_report(run: PlanRun) -> dict[str, Any]:
    """Counts over all replications, by tenant, partition and overall; 95 % intervals beside them.

    A partition's `idle_units` are its own, held while nothing ran; `stranded_units` are those of
    a device that are in no partition.
    """
    horizon_ns = run.options.horizon_ns(run.workload)
    seconds = horizon_ns / SECOND * len(run.replications)
    every = [tenant for each in run.replications for tenant in each.tenants]
    overall = total(every, merged(tenant.latency for tenant in every))
    lanes = [lane for each in run.replications for lane in each.lanes]
    return {
        "format": FORMAT,
        "seconds": seconds,
        "simulated": {
            "planner": run.plan.planner,
            "device": run.plan.device,
            "gpus": len(run.plan.gpus),
            "policy": {
                "route": run.policy.route, "order": run.policy.order, "batch": run.policy.batch,
            },
            "arrivals": run.workload.arrivals.process,
            "rate_scale": run.options.rate_scale,
            "seed": run.workload.seed if run.options.seed is None else run.options.seed,
            "replications": len(run.replications),
        },
        "overall": counted(overall, seconds) | launched(lanes) | {
            "confidence_95": _intervals(run.replications, {
                "attainment": lambda each: (
                    each.attainment if any(one.offered for one in each.tenants) else None
                ),
                "p50_ms": lambda each: ms_from_ns(each.latency_ns(0.5)),
                "p99_ms": lambda each: ms_from_ns(each.latency_ns(0.99)),
                "throughput_rps": lambda each: (
                    sum(tenant.completed for tenant in each.tenants) / horizon_ns * SECOND
                ),
            }),
        },
        "tenants": {
            tenant.name: _tenant(run, number, seconds)
            for number, tenant in enumerate(run.workload.tenants)
        },
        "partitions": _partitions(run, horizon_ns),
        "stranded_units": stranded_units(run.plan),
    }  # fmt: skip


def _intervals(
    replications: Sequence[Replication], figures: dict[str, Callable[[Replication], float | None]]
) -> dict[str, Any]:
    """Of a figure that no replication has, such as the attainment of nobody, both are None."""
    found: dict[str, Any] = {}
    for name, figure in figures.items():
        known = [value for each in replications if (value := figure(each)) is not None]
        over = interval(known) if known else None
        found[name] = {"mean": over and over.mean, "half": over and over.half}
    return found


def _tenant(run: PlanRun, number: int, seconds: float) -> dict[str, Any]:
    parts = [each.tenants[number] for each in run.replications]
    counts = total(parts, merged(part.latency for part in parts))
    return {"slo_ms": run.workload.tenants[number].slo_ms} | counted(counts, seconds) | {
        "confidence_95": _intervals(run.replications, {
            "attainment": lambda each: (
                each.tenants[number].met / each.tenants[number].offered
                if each.tenants[number].offered else None
            ),
            "p99_ms": lambda each: ms_from_ns(each.tenants[number].latency.percentile_ns(0.99)),
        }),
    }  # fmt: skip


def _partitions(run: PlanRun, horizon_ns: int) -> list[dict[str, Any]]:
    numbers: dict[str, list[int]] = {}
    for number, lane in enumerate(run.deployment.lanes):
        numbers.setdefault(lane.partition.id, []).append(number)
    outer = {part.parent for gpu in run.plan.gpus for part in gpu.partitions}
    return [
        {"gpu": gpu.id, "id": part.id, "kind": part.kind, "procs": part.procs}
        | _use(run, part, numbers.get(part.id, []), horizon_ns)
        for gpu in run.plan.gpus
        for part in gpu.partitions
        if part.id not in outer
    ]


def _use(
    run: PlanRun, part: PartitionPlan, lanes: Sequence[int], horizon_ns: int
) -> dict[str, Any]:
    counts = [each.lanes[lane] for each in run.replications for lane in lanes]
    busy = sum(count.busy_ns for count in counts) / max(len(counts) * horizon_ns, 1)
    utilisation = min(1.0, busy)
    return launched(counts) | {
        "units": part.units,
        "utilisation": utilisation,
        "idle_units": part.units * (1 - utilisation),
    }


def stranded_units(plan: Plan) -> int | None:
    """Units of the plan's devices that are in no partition; None for a device not in the tables."""
    try:
        facts = device(plan.device)
    except UnsupportedError:
        return None
    found = 0
    for gpu in plan.gpus:
        outer = [part for part in gpu.partitions if part.parent is None]
        if outer:
            found += facts.whole(outer[0].kind) - sum(part.units for part in outer)
    return found


@dataclass(frozen=True, slots=True)
class _Happening:
    start_ns: int
    finish_ns: int
    lane: int | None
    tenant: int
    tenants: int
    requests: int
    samples: int
    bucket: int
    outcome: str


def plan_timeline(run: PlanRun) -> list[dict[str, Any]]:
    """Chrome trace events of the first replication, one track a lane; needs `timeline`."""
    names = {number: tenant.name for number, tenant in enumerate(run.workload.tenants)}
    happenings = sorted(_happenings(run), key=lambda each: (each.finish_ns, each.start_ns))
    return chrome_events(happenings, names, [str(lane) for lane in run.deployment.lanes])


def _happenings(run: PlanRun) -> Iterator[_Happening]:
    for piece, result in zip(run.pieces, run.replications[0].pieces, strict=True):
        yield from _of_piece(result.timeline(), piece.lanes, piece.tenants)


def _of_piece(
    events: Iterable[tuple[Any, ...]], lanes: Sequence[int], tenants: Sequence[int]
) -> Iterator[_Happening]:
    asked: dict[int, int] = {}
    begun: dict[int, tuple[Any, ...]] = {}
    for event in events:
        time_ns, verb, number = event[:3]
        if verb == "arrive":
            asked[number] = tenants[event[3]]
        elif verb == "start":
            begun[number] = event
        elif verb == "drop":
            tenant = asked.pop(number)
            yield _Happening(time_ns, time_ns, None, tenant, 1, 1, 1, 0, str(event[4]))
        else:
            start_ns, _, _, lane, bucket, requests = begun.pop(number)
            of = [asked.pop(request) for request in requests]
            yield _Happening(
                start_ns, time_ns, lanes[lane], of[0], len(set(of)),
                len(requests), len(requests), bucket, "ok",
            )  # fmt: skip
