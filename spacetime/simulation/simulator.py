"""The simulator: the live scheduler, driven in virtual time.

A specification (lanes, families with their latencies, tenants with their arrivals, a policy and a
seed) gives statistics and, if asked, the whole timeline. Same specification, same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import spacetime._native as _native
from spacetime.policy import Policy
from spacetime.reports.recording import MOST_BYTES, Recording

# (time_ns, "arrive", request, tenant) | (time_ns, "start", launch, lane, bucket, requests)
# | (time_ns, "finish", launch, lane) | (time_ns, "drop", request, tenant, reason)
TimelineEvent = tuple[object, ...]
NativeResult = _native.SimResult
NativeTenant = _native.TenantStats
NativeLane = _native.LaneStats
SimSpec = _native.SimSpec
Stepped = _native.Simulation  # stops where it is told and can be changed there; of a native_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSpec:
    """A lane on a partition of `units`; `borrows`: may run others' work while idle, where the
    policy lends. Lanes of one `pool` share what waits under any policy, as processes that serve
    one queue."""

    units: int = 1
    borrows: bool = True
    pool: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """A family: `latency_ns[lane][bucket]` for every lane that may run it.

    A lane runs batches up to its own largest bucket, and must name every smaller bucket (batch
    size) that another lane names.
    """

    latency_ns: Mapping[int, Mapping[int, int]]

    def __post_init__(self) -> None:
        if not self.latency_ns or not all(self.latency_ns.values()):
            raise ValueError("latency_ns: needs a lane, and a bucket on every lane")
        for lane, by_bucket in self.latency_ns.items():
            for bucket in self.buckets:
                if bucket < max(by_bucket) and bucket not in by_bucket:
                    raise ValueError(f"latency_ns: lane {lane} lacks bucket {bucket}")

    @property
    def buckets(self) -> list[int]:
        """The batch sizes of all lanes, ascending."""
        return sorted({bucket for sizes in self.latency_ns.values() for bucket in sizes})

    @classmethod
    def uniform(cls, lanes: int, latency_ns: Mapping[int, int]) -> FamilySpec:
        """A family that runs alike on lanes `0 .. lanes - 1`."""
        return cls(latency_ns=dict.fromkeys(range(lanes), latency_ns))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimArrivals:
    """When requests arrive: `rate_rps` of `process` poisson, constant or gamma (with the
    gaps' coefficient of variation `cv`), or process `trace` with its `times_ns`."""

    process: str = "poisson"
    rate_rps: float = 0.0
    cv: float = 1.0
    times_ns: tuple[int, ...] = ()

    @classmethod
    def trace(cls, *times_ns: int) -> SimArrivals:
        """Arrivals at the given instants, in nanoseconds."""
        return cls(process="trace", times_ns=times_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSlowdown:
    """Launches that hold the tenant and start in [from_ns, until_ns) take `factor` as long."""

    from_ns: int
    until_ns: int
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimTenant:
    """A tenant of `family` (its place in the list of families) and its workload.

    A request holds `samples` inputs or, of `sizes` (inputs, weight), one drawn by its weight.
    `slo_ns` is its objective, arrival to answer; unless `drops` is false it is also the
    deadline at which a request that has not started is dropped. `lane`: route pinned;
    `lane_weights`: route weighted. `stream`: tenants of one stream and seed draw the same
    arrivals wherever they run (None: the stream is the tenant's place in the list).
    """

    family: int = 0
    arrivals: SimArrivals = SimArrivals()
    samples: int = 1
    sizes: tuple[tuple[int, float], ...] = ()
    slo_ns: int | None = None
    drops: bool = True
    priority: int = 0
    weight: float = 1.0
    queue_limit: int = 1024
    lane: int | None = None
    lane_weights: tuple[float, ...] = ()
    slowdowns: tuple[SimSlowdown, ...] = ()
    stream: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimNoise:
    """How launches differ from their latency: `none`, `exponential`, `lognormal` (with
    coefficient of variation `cv`) or `recorded` (one of `factors`, each equally likely, over
    their mean); the factor has mean 1."""

    kind: str = "none"
    cv: float = 0.0
    factors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimInterference:
    """A launch of `family` that starts on `lane` while `other` runs family `beside` takes
    `1 + extra` times its latency; what several neighbours add is summed."""

    lane: int
    family: int
    other: int
    beside: int
    extra: float


# The names by which `simulate` was documented first; scripts use them.
Arrivals, TenantSpec, Slowdown = SimArrivals, SimTenant, SimSlowdown
Noise, Interference = SimNoise, SimInterference


@dataclass(frozen=True, slots=True)
class TenantResult:
    """What became of a tenant's requests. Latency is arrival to answer, wait arrival to start."""

    offered: int
    completed: int
    dropped: dict[str, int]
    met: int
    late: int
    mean_batch: float
    mean_tenants: float
    mean_wait_ns: float
    mean_latency_ns: float
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int

    @property
    def attainment(self) -> float:
        """Fraction of the offered requests answered within the objective."""
        return self.met / self.offered if self.offered else 1.0


@dataclass(frozen=True, slots=True)
class LaneResult:
    """What a lane did; `utilisation` is busy time over the simulated time."""

    launches: int
    samples: int
    padding: int
    mean_tenants: float
    busy_ns: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class SimResult:
    """Statistics by tenant and lane, in the order of the specification, and the timeline."""

    tenants: tuple[TenantResult, ...]
    lanes: tuple[LaneResult, ...]
    end_ns: int
    timeline: list[TimelineEvent] = field(repr=False)
    recording: Recording | None = field(default=None, repr=False)


def native_policy(policy: Policy | str) -> _native.Policy:
    """The extension's form of a policy, or of the preset with that name."""
    chosen = Policy.named(policy) if isinstance(policy, str) else policy
    return _native.Policy(**asdict(chosen))


def simulate(
    *,
    policy: Policy | str,
    lanes: Sequence[LaneSpec],
    families: Sequence[FamilySpec],
    tenants: Sequence[SimTenant],
    duty: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    interference: Sequence[SimInterference] = (),
    noise: SimNoise = SimNoise(),
    horizon_ns: int | None = None,
    requests: int | None = None,
    seed: int = 0,
    timeline: bool = False,
    record: bool = False,
) -> SimResult:
    """Runs the scheduler in virtual time until every request is answered or dropped.

    Arrivals end at `horizon_ns` or after `requests`; one of them is needed unless all tenants
    replay a trace. `duty[lane]` is a cycle of (tenant, samples) turns for order `duty`.

    Raises:
        ValueError: a specification that is none; the message names the field.

    Example:
        >>> family = FamilySpec(latency_ns={0: {1: 1000}})
        >>> tenant = SimTenant(lane=0, arrivals=SimArrivals.trace(0, 10))
        >>> run = simulate(policy="time-only", lanes=[LaneSpec()], families=[family],
        ...                tenants=[tenant])
        >>> run.end_ns
        2000
    """
    result = native_run(
        policy=policy, lanes=lanes, families=families, tenants=tenants, duty=duty,
        interference=interference, noise=noise,
        horizon_ns=horizon_ns, requests=requests, seed=seed, timeline=timeline,
        record=record,
    )  # fmt: skip
    return SimResult(
        tenants=tuple(map(_tenant_result, result.tenants)),
        lanes=tuple(_lane_result(lane, result.end_ns) for lane in result.lanes),
        end_ns=result.end_ns,
        timeline=result.timeline(),
        recording=Recording(result.recording) if record else None,
    )


def native_run(**spec: Any) -> _native.SimResult:
    """As `simulate`; the extension's own counters, whose histograms merge. Holds no GIL."""
    return _native.simulate(native_spec(**spec))


def native_spec(
    *,
    policy: Policy | str,
    lanes: Sequence[LaneSpec],
    families: Sequence[FamilySpec],
    tenants: Sequence[SimTenant],
    duty: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    interference: Sequence[SimInterference] = (),
    noise: SimNoise = SimNoise(),
    horizon_ns: int | None = None,
    requests: int | None = None,
    seed: int = 0,
    timeline: bool = False,
    record: bool = False,
) -> _native.SimSpec:
    """The extension's form of what `simulate` takes, also for a `Stepped` simulation."""
    return _native.SimSpec(
        policy=native_policy(policy),
        lanes=[(lane.units, lane.borrows, lane.pool) for lane in lanes],
        families=[family.buckets for family in families],
        latencies=_latencies(families),
        tenants=[_native_tenant(tenant) for tenant in tenants],
        duty=[(lane, list(turns)) for lane, turns in (duty or {}).items()],
        interference=[
            (each.lane, each.family, each.other, each.beside, each.extra) for each in interference
        ],
        noise=noise.kind,
        noise_cv=noise.cv,
        noise_factors=list(noise.factors),
        horizon_ns=horizon_ns,
        requests=requests,
        seed=seed,
        timeline=timeline,
        record=MOST_BYTES if record else 0,
    )


def merged(histograms: Iterable[_native.Histogram]) -> _native.Histogram:
    """One histogram of all their values."""
    out = _native.Histogram()
    for histogram in histograms:
        out.merge(histogram)
    return out


def _latencies(families: Sequence[FamilySpec]) -> list[tuple[int, int, int, int]]:
    return [
        (number, lane, bucket, latency_ns)
        for number, family in enumerate(families)
        for lane, by_bucket in family.latency_ns.items()
        for bucket, latency_ns in by_bucket.items()
    ]


def _native_tenant(tenant: SimTenant) -> _native.SimTenant:
    return _native.SimTenant(
        family=tenant.family,
        priority=tenant.priority,
        weight=tenant.weight,
        queue_limit=tenant.queue_limit,
        lane=tenant.lane,
        lane_weights=list(tenant.lane_weights),
        process=tenant.arrivals.process,
        rate=tenant.arrivals.rate_rps,
        cv=tenant.arrivals.cv,
        times=list(tenant.arrivals.times_ns),
        stream=tenant.stream,
        samples=tenant.samples,
        sizes=list(tenant.sizes),
        slo_ns=tenant.slo_ns,
        drops=tenant.drops,
        slowdowns=[(slow.from_ns, slow.until_ns, slow.factor) for slow in tenant.slowdowns],
    )


def _tenant_result(stats: _native.TenantStats) -> TenantResult:
    completed = max(stats.completed, 1)
    latency = stats.latency
    return TenantResult(
        offered=stats.offered,
        completed=stats.completed,
        dropped=stats.dropped,
        met=stats.met,
        late=stats.late,
        mean_batch=stats.batch_sum / completed,
        mean_tenants=stats.tenants_sum / completed,
        mean_wait_ns=stats.wait.mean_ns,
        mean_latency_ns=latency.mean_ns,
        p50_ns=latency.percentile_ns(0.5),
        p90_ns=latency.percentile_ns(0.9),
        p99_ns=latency.percentile_ns(0.99),
        max_ns=latency.max_ns,
    )


def _lane_result(stats: _native.LaneStats, end_ns: int) -> LaneResult:
    return LaneResult(
        launches=stats.launches,
        samples=stats.samples,
        padding=stats.padding,
        mean_tenants=stats.tenants / max(stats.launches, 1),
        busy_ns=stats.busy_ns,
        utilisation=stats.busy_ns / end_ns if end_ns else 0.0,
    )
