"""`bench agreement`: does the simulator foretell what the machine then does?

For each policy a session on this CPU is driven with Poisson arrivals, open loop, in rounds of a
rehearsal and a performance. The rehearsals, with other arrivals, give the profile: the mean time of
a launch by lane and batch, and by which factors launches differed from it. The simulator is given
the performances' arrivals, the same policy and that profile. Latency counts from submission to
answer. Rounds alternate because the machine's speed drifts: both halves see the same of it.

*Hindsight* is the same with the profile of the performances themselves.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.driving.loads import schedule
from spacetime.demo.zoo import exhibits as zoo
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.policy import PRESETS
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    NativeResult,
    SimArrivals,
    SimNoise,
    SimTenant,
    merged,
    native_run,
)
from spacetime.units import SECOND, ms_from_ns
from spacetime.workload.openloop import Sent, Target, drive

GOALS = {"p50": 0.10, "p99": 0.25, "throughput": 0.05}  # relative difference at most
TENANTS = 4
ROUNDS = 8
SLO_PER_LAUNCH = 40  # objective: this many times a launch of one request
QUANTILES = [n / 100 for n in range(1, 100)] + [0.995, 0.999]


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured: mean time by (family, lane, bucket), and launches' parts of their mean."""

    mean_ns: dict[tuple[int, int, int], float]
    factors: tuple[float, ...]

    @property
    def cv(self) -> float:
        """The coefficient of variation of a launch."""
        return math.sqrt(fmean((factor - 1) ** 2 for factor in self.factors))


def run(
    *,
    quick: bool = False,
    out: Path | None = None,
    as_json: bool = False,
    seed: int = 0,
    policies: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    loads: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Measures and simulates every policy, kind of model and load; prints and records both."""
    record.known("policies", policies or (), PRESETS)
    record.known("models", models or (), zoo.KINDS)
    seconds = 0.5 if quick else 16.0
    chosen = {"policies": policies, "models": models, "loads": loads}
    result = record.header("agreement", seed=seed, quick=quick, chosen=chosen)
    rows = []
    for model in models or ("resnet",):
        with zoo.one_thread():
            entries = list(zoo.load(model, TENANTS, seed=seed))
        rows += [
            {"model": model} | row_of(policy, entries, load, seconds=seconds, seed=seed)
            for load in loads or ((0.5,) if quick else (0.3, 0.6))
            for policy in policies or PRESETS
        ]
    result |= {"goals": GOALS, "seconds": seconds, "rows": rows}
    record.publish(result, [shown(rows)], out=out, as_json=as_json, plots="agreement")
    return result


def row_of(
    policy: str, entries: Sequence[ZooModel], load: float, *, seconds: float, seed: int
) -> dict[str, Any]:
    """Returns the row of one policy: rehearsed, driven and simulated.

    load: the rate, as a part of what the lanes answer without batches.
    """
    with Session("cpu", policy=policy, timeline=True) as session:
        with zoo.one_thread():
            tenants = [
                session.add(entry.model, example_inputs=(entry.pool[:1],), name=entry.name)
                for entry in entries
            ]
        one_ns = fmean(t.family.predicted_ns(t.lane, 1) for t in tenants)
        slo_ns = SLO_PER_LAUNCH * one_ns
        for tenant in tenants:
            tenant.slo_ms = ms_from_ns(slo_ns)
        rps = load * len(session.partitions) / one_ns * SECOND
        targets = [
            Target(tenant.submit, entry.pool.unsqueeze(1).unbind())
            for tenant, entry in zip(tenants, entries, strict=True)
        ]
        arrivals = partial(schedule, len(tenants), rps, round(slo_ns), seconds / ROUNDS)
        drive(targets, arrivals(seed))  # warms up
        session.timeline()
        rehearsed, performed = [], []
        sent = []
        for n in range(ROUNDS):
            drive(targets, arrivals(seed + 2 * n + 2))
            rehearsed += session.timeline()
            sent.append(drive(targets, arrivals(seed + 2 * n + 1)))
            performed += session.timeline()
        profile, own = measured(session, rehearsed), measured(session, performed)
        foretold = [simulated(session, tenants, profile, part, round(slo_ns)) for part in sent]
        after = [simulated(session, tenants, own, part, round(slo_ns)) for part in sent]
        hindsight = compared(sent, after)
    return compared(sent, foretold) | {
        "policy": policy, "load": load, "offered_rps": rps, "cv": profile.cv,
        "hindsight": {name: hindsight[name] for name in ("simulated", "off", "agrees")},
    }  # fmt: skip


def measured(session: Session, events: Sequence[dict[str, Any]]) -> Profile:
    """Returns the profile of a timeline.

    Buckets that never ran have their predicted time, multiplied by how wrong predictions were.
    """
    family_of = {t.name: session.families.index(t.family) for t in session.tenants.values()}
    took: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":  # a fused launch names no tenant: then there is one family
            key = (family_of.get(event["name"], 0), event["tid"] - 1, event["args"]["bucket"])
            took[key].append(event["dur"] * 1000)
    means = {key: fmean(times) for key, times in took.items()}
    predicted = {
        (number, lane, bucket): float(family.predicted_ns(lane, bucket))
        for number, family in enumerate(session.families)
        for lane in range(len(session.partitions))
        for bucket in family.buckets
    }
    ratio = fmean(means[key] / predicted[key] for key in means if key in predicted)
    factors = tuple(time / means[key] for key, times in took.items() for time in times)
    unseen = {key: ns * ratio for key, ns in predicted.items()}
    return Profile(unseen | means, factors)


def simulated(
    session: Session, tenants: Sequence[Tenant], profile: Profile, sent: Sequence[Sent], slo_ns: int
) -> NativeResult:
    """Simulates the same arrivals: the instants at which the requests were submitted."""
    arrived: list[list[int]] = [[] for _ in tenants]
    for request in sent:
        arrived[request.tenant].append(request.due_ns + request.late_ns)
    lanes = range(len(session.partitions))
    return native_run(
        policy=session.policy,
        lanes=[LaneSpec(units=len(cores)) for cores in session.partitions],
        families=[
            FamilySpec(latency_ns={
                lane: {b: round(profile.mean_ns[number, lane, b]) for b in family.buckets}
                for lane in lanes
            })
            for number, family in enumerate(session.families)
        ],
        tenants=[
            SimTenant(
                family=session.families.index(tenant.family), lane=tenant.lane, slo_ns=slo_ns,
                arrivals=SimArrivals.trace(*times),
            )
            for tenant, times in zip(tenants, arrived, strict=True)
        ],
        noise=SimNoise(kind="recorded", factors=profile.factors),
        seed=len(sent),
    )  # fmt: skip


def compared(rounds: Sequence[Sequence[Sent]], foretold: Sequence[NativeResult]) -> dict[str, Any]:
    """Returns both sides, and how far apart they are: latency quantiles, throughput, drops."""
    sent = [request for part in rounds for request in part]
    live = sorted(r.latency_ns - r.late_ns for r in sent if r.latency_ns is not None)
    begins = [min(r.due_ns + r.late_ns for r in part) for part in rounds]
    ends = [max(r.due_ns + r.latency_ns for r in part if r.latency_ns is not None)
            for part in rounds]  # fmt: skip
    tenants = [tenant for run in foretold for tenant in run.tenants]
    histogram = merged(tenant.latency for tenant in tenants)
    completed = sum(tenant.completed for tenant in tenants)
    lasted = sum(ends) - sum(begins)
    lasts = sum(run.end_ns for run in foretold) - sum(begins)
    sides: dict[str, dict[str, Any]] = {
        "live": {
            "ms": [ms_from_ns(live[math.ceil(q * len(live)) - 1]) for q in QUANTILES],
            "rps": len(live) / lasted * SECOND,
            "dropped": len(sent) - len(live),
        },
        "simulated": {
            "ms": [ms_from_ns(histogram.percentile_ns(q)) for q in QUANTILES],
            "rps": completed / lasts * SECOND,
            "dropped": len(sent) - completed,
        },
    }
    off = {
        name: side / live_side - 1
        for name, side, live_side in (
            *((f"p{p}", *(sides[s]["ms"][p - 1] for s in ("simulated", "live"))) for p in (50, 99)),
            ("throughput", sides["simulated"]["rps"], sides["live"]["rps"]),
        )
    }
    return {
        "requests": len(sent), "quantiles": QUANTILES, **sides, "off": off,
        "agrees": all(abs(off[name]) <= goal for name, goal in GOALS.items()),
    }  # fmt: skip


def shown(rows: Sequence[dict[str, Any]]) -> Any:
    """Returns the table: live and simulated side by side."""
    heads = ["policy", "model", "load", "requests", "p50 ms live", "p50 ms simulated",
             "p99 ms live", "p99 ms simulated", "answers/s live", "answers/s simulated",
             "cv of launches", "agrees", "agrees in hindsight"]  # fmt: skip
    lines = []
    for row in rows:
        live, foretold = row["live"], row["simulated"]
        lines.append([
            row["policy"], row["model"], row["load"], row["requests"],
            live["ms"][49], foretold["ms"][49], live["ms"][98], foretold["ms"][98],
            live["rps"], foretold["rps"], row["cv"], "yes" if row["agrees"] else "no",
            "yes" if row["hindsight"]["agrees"] else "no",
        ])  # fmt: skip
    return record.table("agreement: live and simulated", heads, lines)
