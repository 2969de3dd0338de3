"""What happened, as numbers (design §9, format spacetime.report/1)."""

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
    """The sum of `parts`; `latency` is the merged histogram."""
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
    """A live tenant's counts with what never reached its queue and what its model or lane failed.

    So that offered = completed + dropped + what is still under way, for every tenant at any time.
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
    """Everything counted since a driver's first request."""

    elapsed_ns: int
    overall: Counts
    tenants: Sequence[Counts]  # by number
    lanes: Sequence[LaneCounts]


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Audited answers of one tenant; `worst` is the largest relative difference among those that
    were compared, infinite where something else than a number differed."""

    checked: int = 0
    differences: int = 0
    unsure: int = 0  # not compared: the model differs from itself by rounding alone
    skipped: int = 0  # not compared: the audit was behind
    worst: float = 0.0

    def with_one(self, worst: float, *, differs: bool, unsure: bool) -> AuditCounts:
        """With one more answer that was looked at."""
        return AuditCounts(
            self.checked + (not unsure),
            self.differences + differs,
            self.unsure + unsure,
            self.skipped,
            self.worst if unsure else max(self.worst, worst),
        )


NOT_AUDITED = AuditCounts()


def audited(counts: AuditCounts) -> dict[str, Any]:
    """The audit's part of a tenant's report; `worst_difference` is null where it is infinite."""
    found = asdict(counts)
    worst = found.pop("worst")
    return {"audit": found | {"worst_difference": worst if math.isfinite(worst) else None}}


def session_report(
    observed: Observed, numbers: Mapping[str, int], partitions: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The whole report; `numbers` maps the names of present tenants to their numbers."""
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
    """One tenant's part: counts, SLO attainment, latency percentiles, rates, mean batch."""
    return counted(observed.tenants[number], observed.elapsed_ns / SECOND)


def counted(counts: Counts, seconds: float) -> dict[str, Any]:
    """The counts of one tenant, or of all, over `seconds`, as the report has them."""
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
    """Means over launches, not over requests: what a launch held on average."""
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
