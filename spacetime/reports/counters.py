"""What a session has counted since it opened: plain sums that only grow, for metrics to read.

`report` makes rates and percentiles of the same facts for people; these are for a monitor that
takes differences between two readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spacetime.reports.report import NOT_AUDITED, AuditCounts, Counts, LaneCounts, Latencies


class Durations(Latencies, Protocol):
    """A histogram that knows how many it holds."""

    @property
    def count(self) -> int: ...


class StartedCounts(Counts, Protocol):
    """What became of one tenant's requests, and what was started of them."""

    @property
    def late(self) -> int: ...
    @property
    def launches(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def wait(self) -> Durations: ...
    @property
    def latency(self) -> Durations: ...


class Stats(Protocol):
    """What the executor has counted, by the numbers of tenants and lanes."""

    @property
    def tenants(self) -> Sequence[StartedCounts]: ...
    @property
    def lanes(self) -> Sequence[PaddedCounts]: ...
    @property
    def failed(self) -> Sequence[int]: ...
    @property
    def refused(self) -> Sequence[int]: ...
    @property
    def running(self) -> int: ...


class PaddedCounts(LaneCounts, Protocol):
    """What a lane ran, and the rows that were padding."""

    @property
    def padding(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TenantCounters:
    """One tenant: requests by what became of them; launches and samples that started; times."""

    accepted: int
    refused: int  # for want of room in the queue
    completed: int
    met: int
    late: int
    failed: int  # the model raised
    dropped: Mapping[str, int]  # by reason
    launches: int
    samples: int
    wait_ns: int  # of completed requests, arrival to start
    latency_ns: int  # of completed requests, arrival to end
    p99_ns: int
    audit: AuditCounts = NOT_AUDITED
    apart: bool = False  # each request runs alone, since an audit found a difference

    @property
    def pending(self) -> int:
        """Accepted requests that have not ended."""
        return self.accepted - self.completed - self.failed - sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class LaneCounters:
    """One lane: the cores or SMs of its partition, and what ran there.

    `granted` is 0 while no plan uses the lane; its counts stay.
    """

    size: int
    granted: int
    launches: int
    samples: int
    padding: int
    tenants: int  # summed over the launches
    busy_ns: int


@dataclass(frozen=True, slots=True)
class Counters:
    """All of a session's; tenants that were removed are not among them."""

    tenants: Mapping[str, TenantCounters]
    lanes: tuple[LaneCounters, ...]
    running: int  # launches


def counters(stats: Stats, numbers: Mapping[str, int], sizes: Sequence[int]) -> Counters:
    """One reading; `numbers` are those of the tenants by name, `sizes` of the lanes in order."""
    tenants = {
        name: _tenant(stats.tenants[n], stats.failed[n], stats.refused[n])
        for name, n in numbers.items()
    }
    lanes = tuple(
        LaneCounters(size, size, at.launches, at.samples, at.padding, at.tenants, at.busy_ns)
        for at, size in zip(stats.lanes, sizes, strict=False)  # one may be opening right now
    )
    return Counters(tenants, lanes, stats.running)


def _tenant(counts: StartedCounts, failed: int, refused: int) -> TenantCounters:
    return TenantCounters(
        accepted=counts.offered,
        refused=refused,
        completed=counts.completed,
        met=counts.met,
        late=counts.late,
        failed=failed,
        dropped=dict(counts.dropped),
        launches=counts.launches,
        samples=counts.samples,
        wait_ns=_sum_ns(counts.wait),
        latency_ns=_sum_ns(counts.latency),
        p99_ns=counts.latency.percentile_ns(0.99),
    )


def _sum_ns(durations: Durations) -> int:
    return round(durations.mean_ns * durations.count)
