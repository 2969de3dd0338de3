"""What a session has counted since it opened: sums that only grow, for metrics to read.

`report.py` makes rates and percentiles of the same facts for people. Counters are for a monitor,
which takes the difference between two readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spacetime.reports.report import NOT_AUDITED, AuditCounts, Counts, LaneCounts, Latencies


class Durations(Latencies, Protocol):
    """A histogram of durations that knows how many it holds."""

    @property
    def count(self) -> int: ...


class StartedCounts(Counts, Protocol):
    """What became of one tenant's requests, and which launches were started for them."""

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
    """One tenant since it was added: requests by what became of them, launches, samples, times."""

    accepted: int  # requests that entered the queue
    refused: int  # requests for which the queue had no room
    completed: int  # requests that were answered
    met: int  # of those completed, within their objective
    late: int  # of those completed, after it
    failed: int  # requests whose model raised
    dropped: Mapping[str, int]  # requests by the reason why they were dropped
    launches: int  # that started with a request of this tenant
    samples: int  # whose launch has started
    wait_ns: int  # summed over completed requests, from arrival to start
    latency_ns: int  # summed over completed requests, from arrival to end
    p99_ns: int  # the 99th percentile of their latencies
    audit: AuditCounts = NOT_AUDITED
    apart: bool = False  # each request runs alone, since an audit found a difference

    @property
    def pending(self) -> int:
        """How many accepted requests have not ended."""
        return self.accepted - self.completed - self.failed - sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class LaneCounters:
    """One lane: the cores or SMs of its partition, and what ran there."""

    size: int  # cores or SMs of the partition
    granted: int  # the same; 0 while no plan uses the lane, whose counts stay
    launches: int
    samples: int  # summed over the launches
    padding: int  # rows that only filled a bucket, summed over the launches
    tenants: int  # summed over the launches
    busy_ns: int  # that a launch held the lane


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything a session has counted; tenants that were removed are not among them."""

    tenants: Mapping[str, TenantCounters]  # by name
    lanes: tuple[LaneCounters, ...]
    running: int  # launches that run now


def counters(stats: Stats, numbers: Mapping[str, int], sizes: Sequence[int]) -> Counters:
    """Returns one reading of what the executor has counted.

    numbers: the executor's number of each tenant, by name. sizes: cores or SMs of each lane.
    """
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
