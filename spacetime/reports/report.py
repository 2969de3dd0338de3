"""Reports: what happened, as numbers for people. Format: spacetime.report/1."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from spacetime.units import SECOND, ms_from_ns

FORMAT = "spacetime.report/1"


class Latencies(Protocol):
    """A histogram of durations in nanoseconds."""

    @property
    def max_ns(self) -> int: ...
    @property
    def mean_ns(self) -> float: ...
    def percentile_ns(self, fraction: float) -> int: ...


class Counts(Protocol):
    """What became of some requests."""

    @property
    def offered(self) -> int: ...
    @property
    def completed(self) -> int: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...
    @property
    def met(self) -> int: ...
    @property
    def batch_sum(self) -> int: ...
    @property
    def tenants_sum(self) -> int: ...
    @property
    def latency(self) -> Latencies: ...


@dataclass(frozen=True, slots=True)
class Total:
    """What became of the requests of one tenant, or of several together."""

    offered: int
    completed: int
    dropped: Mapping[str, int]
    met: int
    batch_sum: int
    tenants_sum: int
    latency: Latencies


def total(parts: Sequence[Counts], latency: Latencies) -> Total:
    """Returns the sum of `parts`; `latency` is their merged histogram."""
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part.dropped)
    return Total(
        offered=sum(part.offered for part in parts),
        completed=sum(part.completed for part in parts),
        dropped=dropped,
        met=sum(part.met for part in parts),
        batch_sum=sum(part.batch_sum for part in parts),
        tenants_sum=sum(part.tenants_sum for part in parts),
        latency=latency,
    )


def ended(counts: Counts, *, refused: int, failed: int) -> Total:
    """Returns a live tenant's counts together with its refused and failed requests.

    refused: requests that never reached the queue. failed: requests that a model or lane failed.
    So for every tenant, at any time: offered = completed + dropped + those still under way.
    """
    full = counts.dropped.get("queue-full", 0) + refused
    return Total(
        offered=counts.offered + refused,
        completed=counts.completed,
        dropped={**counts.dropped, "queue-full": full, "failed": failed},
        met=counts.met,
        batch_sum=counts.batch_sum,
        tenants_sum=counts.tenants_sum,
        latency=counts.latency,
    )


class LaneCounts(Protocol):
    """What a lane ran."""

    @property
    def launches(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def tenants(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was counted since the first request."""

    elapsed_ns: int
    overall: Counts
    tenants: Sequence[Counts]  # by number
    lanes: Sequence[LaneCounts]


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """How many answers of one tenant were audited, and what was found."""

    checked: int = 0  # answers that were compared with the model run alone
    differences: int = 0  # of those checked, beyond the tolerance
    unsure: int = 0  # answers not compared: the model differs from itself by rounding alone
    skipped: int = 0  # answers not compared: the audit was behind
    worst: float = (
        0.0  # the largest relative difference; infinite where no number but a kind differs
    )

    def with_one(self, worst: float, *, differs: bool, unsure: bool) -> AuditCounts:
        """Returns the counts with one more answer that was looked at.

        worst: its largest relative difference. differs, unsure: what was found of it.
        """
        return AuditCounts(
            self.checked + (not unsure),
            self.differences + differs,
            self.unsure + unsure,
            self.skipped,
            self.worst if unsure else max(self.worst, worst),
        )


NOT_AUDITED = AuditCounts()


def audited(counts: AuditCounts) -> dict[str, Any]:
    """Returns the audit's part of a tenant's report.

    `worst_difference` is null where something else than a number differed.
    """
    fields = asdict(counts)
    worst = fields.pop("worst")
    return {"audit": fields | {"worst_difference": worst if math.isfinite(worst) else None}}


def session_report(
    observed: Observed, numbers: Mapping[str, int], partitions: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Returns the whole report of a session.

    numbers: the executor's number of each present tenant, by name. partitions: each lane's units.
    """
    seconds = observed.elapsed_ns / SECOND
    return {
        "format": FORMAT,
        "seconds": seconds,
        "overall": counted(observed.overall, seconds) | launched(observed.lanes),
        "tenants": {name: tenant_report(observed, number) for name, number in numbers.items()},
        "partitions": [
            _lane(lane, cores, observed.elapsed_ns)
            for lane, cores in zip(observed.lanes, partitions, strict=True)
        ],
    }


def tenant_report(observed: Observed, number: int) -> dict[str, Any]:
    """Returns one tenant's part of the report; `number` is the executor's number of it."""
    return counted(observed.tenants[number], observed.elapsed_ns / SECOND)


def counted(counts: Counts, seconds: float) -> dict[str, Any]:
    """Returns the counts of one tenant, or of all, over `seconds`, as the report has them.

    `attainment` is the fraction of requests, but for those cancelled, that met their objective;
    null where there is none. Rates are in requests a second, latencies in ms.
    """
    judged = counts.offered - counts.dropped.get("cancelled", 0)
    latency = counts.latency
    percentiles = {f"p{p}": ms_from_ns(latency.percentile_ns(p / 100)) for p in (50, 90, 99)}
    return {
        "offered": counts.offered,
        "completed": counts.completed,
        "dropped": dict(counts.dropped),
        "attainment": _ratio(counts.met, judged),
        "latency_ms": percentiles
        | {"max": ms_from_ns(latency.max_ns), "mean": ms_from_ns(latency.mean_ns)},
        "throughput_rps": _ratio(counts.completed, seconds),
        "goodput_rps": _ratio(counts.met, seconds),
        "mean_batch": _ratio(counts.batch_sum, counts.completed),
        "tenants_per_launch": _ratio(counts.tenants_sum, counts.completed),
    }


def launched(lanes: Sequence[LaneCounts]) -> dict[str, Any]:
    """Returns how many launches there were, and their means: over launches, not over requests."""
    launches = sum(lane.launches for lane in lanes)
    return {
        "launches": launches,
        "mean_batch": _ratio(sum(lane.samples for lane in lanes), launches),
        "tenants_per_launch": _ratio(sum(lane.tenants for lane in lanes), launches),
    }


def _lane(lane: LaneCounts, cores: Sequence[int], elapsed_ns: int) -> dict[str, Any]:
    utilisation = min(1.0, lane.busy_ns / elapsed_ns) if elapsed_ns else 0.0
    return {
        "kind": "cores",
        "cores": list(cores),
        "units": len(cores),
        "launches": lane.launches,
        "utilisation": utilisation,
        "idle_units": len(cores) * (1 - utilisation),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
