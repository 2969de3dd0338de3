"""PARIS (Kim et al., DAC'22): MIG sizes from the distribution of request sizes. Run under ELSA.

A request is already a batch: of `b` inputs with probability `Dist(b)`. Each MIG size has a knee,
the smallest batch that uses it well; sizes in ascending order take the batches up to their knees,
the largest the rest; what keeps busy how many instances gives their numbers. Policy `elsa` sends
each request to the smallest instance that answers it in time.

Deviations. The paper has one model on a given number of devices and scales the ratio of instances
to it; here every tenant gets what its rate needs under the utilisation ceiling, on as few devices,
and only then, where `options.gpus` leaves room, more of what is busiest. Numbers are rounded down
from small sizes to large: what is over goes to the next size, where it runs sooner, and what is
over in the end to the size that does it with fewest slices. A size takes no batch that misses the
objective on it (the paper looks at run time). Utilisation is not in a profile: the knee is where a
size reaches `knee` of its highest throughput. Instances are packed largest first, best fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import ROUNDING, Part, at_least, never_fills, serves, usable
from spacetime.plan.memory import holding
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import assemble
from spacetime.planners.packing.mig_devices import Devices
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload, log_normal

KIND = "mig"
Curves = Mapping[int, tuple[Point, ...]]  # of each size the points by ascending batch


@dataclass(frozen=True, slots=True)
class SizeShare:
    """What one size serves of a tenant: requests a second of each batch, by how many instances."""

    units: int
    requests_rps: Mapping[int, float]
    instances: int
    busy: float  # instances' worth of work, under the ceiling

    @property
    def rate_rps(self) -> float:
        """Inputs a second."""
        return sum(batch * rate for batch, rate in self.requests_rps.items())


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Paris:
    """The planner of PARIS over the MIG points of one process; its plans name policy `elsa`.

    A tenant's `rate_rps` counts inputs, as everywhere. `batches`: the weight of each size of
    request; None for the tenant's own `batch_mix` or, where it has none, a log-normal distribution
    of `variance` around the middle of 1 to `largest` (on a log axis), cut where the largest
    instance misses the objective. `knee`: see above.

    Raises UnsupportedError naming the field.
    """

    batches: Mapping[int, float] | None = None
    largest: int = 32
    variance: float = 0.9
    knee: float = 0.8
    name: str = "paris"

    def __post_init__(self) -> None:
        for field, value, high in (("knee", self.knee, 1.0), ("variance", self.variance, 100.0)):
            if not 0 < value <= high:
                raise UnsupportedError(
                    f"{field}: must be above 0 and at most {high:g}, got {value}"
                )
        if self.largest < 1:
            raise UnsupportedError(f"largest: must be at least 1, got {self.largest}")
        weights = {1: 1.0} if self.batches is None else self.batches
        if not weights or any(int(b) < 1 or not w > 0 for b, w in weights.items()):
            raise UnsupportedError("batches: must map sizes from 1 to weights above 0")

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError: `profile`, `latency`, `fill`, or `gpus`."""
        profiles = holding(workload, profiles, device)
        wanted = []
        reasons = []
        for tenant in workload.tenants:
            curves = curves_of(tenant, profiles, options)
            shares = self.shares(tenant, curves, options)
            wanted += [_Class(tenant, curves[share.units], share) for share in shares]
            reasons.append(Reason(tenant.name, _why(shares)))
        counts = [want.least(options) for want in wanted]
        devices = Devices(two_threes=True, geometry=device.geometry)
        for at in sorted(range(len(wanted)), key=lambda at: -wanted[at].share.units):
            for _ in range(counts[at]):
                devices.place(wanted[at].part(counts[at], options))
        if options.gpus is not None:
            counts = _fill_up(wanted, counts, devices, options)
        rated = {
            (want.tenant.name, want.share.units): want.part(count, options)
            for want, count in zip(wanted, counts, strict=True)
        }
        made = [
            [rated[part.tenant.name, part.point.units] for part in parts] for parts in devices.parts
        ]
        plan = assemble(
            self.name,
            made,
            workload,
            profiles=profiles,
            device=device,
            options=options,
            reasons=reasons,
        )
        return replace(plan, policy="elsa")

    def shares(self, tenant: Tenant, curves: Curves, options: PlanOptions) -> tuple[SizeShare, ...]:
        """Sizes of a tenant, their batches and instances, ascending: steps A to D of the paper."""
        requests = self._requests(tenant, curves)
        ranges = segments(tenant, curves, self.knee, max(requests))
        mixes = {
            units: {batch: rate for batch, rate in requests.items() if low < batch <= high}
            for units, (low, high) in ranges.items()
        }
        return tuple(_rounded(mixes, curves, tenant.slo_ms, options))

    def _requests(self, tenant: Tenant, curves: Curves) -> dict[int, float]:
        """Requests a second of each batch. Raises InfeasibleError for one too large to answer."""
        top = _largest_in_time(curves[max(curves)], tenant.slo_ms)
        if self.batches is None:
            weights = dict(tenant.batch_mix or log_normal(min(self.largest, top), self.variance))
        else:
            weights = {int(batch): weight for batch, weight in self.batches.items()}
        if max(weights) > top:
            raise InfeasibleError(
                tenant.name,
                "latency",
                f"requests of {max(weights)} inputs: the largest that {max(curves)} slices answer "
                f"within {tenant.slo_ms:g} ms has {top}",
            )
        mean = sum(batch * weight for batch, weight in weights.items())
        return {batch: tenant.rate_rps * weight / mean for batch, weight in weights.items()}


def curves_of(tenant: Tenant, profiles: Profiles, options: PlanOptions) -> Curves:
    """Of each size that answers one batch in time its points. Raises InfeasibleError for none."""
    single = replace(options, max_procs=1)
    sizes = {point.units for point in usable(tenant, profiles, single, kind=KIND, whole=False)}
    found = {
        units: tuple(
            point
            for point in profiles.batches(tenant.model, KIND, units)
            if tenant.allows(point.batch)
        )
        for units in sorted(sizes)
    }
    found = {u: points for u, points in found.items() if _largest_in_time(points, tenant.slo_ms)}
    if found:
        return found
    raise InfeasibleError(
        tenant.name,
        "latency",
        f"the smallest batch of no size is answered within {tenant.slo_ms:g} ms",
    )


def knee_batch(points: Sequence[Point], part: float) -> int:
    """The smallest batch whose throughput reaches `part` of the highest."""
    most = max(point.throughput_rps for point in points)
    return next(point.batch for point in points if point.throughput_rps >= part * most)


def segments(
    tenant: Tenant, curves: Curves, part: float, largest: int
) -> dict[int, tuple[int, int]]:
    """The batches of each size, `low < batch <= high`; a size without any is left out.

    The largest size takes the rest.
    """
    found, low = {}, 0
    for units, points in curves.items():
        high = min(knee_batch(points, part), _largest_in_time(points, tenant.slo_ms), largest)
        if units == max(curves):
            high = largest
        if high > low:
            found[units] = (low, high)
            low = high
    return found


def _largest_in_time(points: Sequence[Point], slo_ms: float) -> int:
    """The largest batch up to which every one is answered in time; 0 where the first is not."""
    largest = 0
    for point in points:
        if point.latency_ms > slo_ms:
            break
        largest = point.batch
    return largest


def _rounded(
    mixes: Mapping[int, Mapping[int, float]], curves: Curves, slo_ms: float, options: PlanOptions
) -> list[SizeShare]:
    """Whole instances of each size; what is over goes to the next, in the end to the cheapest."""
    mix: dict[int, float] = {}
    found: dict[int, SizeShare] = {}
    for units, own in mixes.items():
        mix = _sum(mix, own)
        busy = _busy(mix, curves[units], options)
        instances = int(busy * (1 + ROUNDING))
        if instances:
            full = {batch: rate * instances / busy for batch, rate in mix.items()}
            found[units] = SizeShare(units, full, instances, float(instances))
            mix = {batch: rate * max(0.0, 1 - instances / busy) for batch, rate in mix.items()}
    if sum(mix.values()) > ROUNDING * sum(sum(own.values()) for own in mixes.values()):
        last = _cheapest(mix, curves, slo_ms, options)
        found[last.units] = _merged(found.get(last.units), last)
    return [found[units] for units in sorted(found)]


def _cheapest(
    mix: Mapping[int, float], curves: Curves, slo_ms: float, options: PlanOptions
) -> SizeShare:
    """The fewest slices that do what no instance was full with, every batch in time."""
    shares = [
        SizeShare(units, mix, at_least(busy), busy)
        for units, points in curves.items()
        if max(mix) <= _largest_in_time(points, slo_ms)
        and math.isfinite(busy := _busy(mix, points, options))
    ]
    return min(shares, key=lambda share: (share.instances * share.units, share.units))


def _merged(one: SizeShare | None, other: SizeShare) -> SizeShare:
    if one is None:
        return other
    mix = _sum(one.requests_rps, other.requests_rps)
    return SizeShare(one.units, mix, one.instances + other.instances, one.busy + other.busy)


def _sum(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {b: one.get(b, 0.0) + other.get(b, 0.0) for b in sorted({*one, *other})}


def _busy(mix: Mapping[int, float], points: Sequence[Point], options: PlanOptions) -> float:
    """How many instances these requests keep busy, under the ceiling: sum of Dist(b) / Thr(b)."""
    seconds = sum(
        rate * next((p.latency_ms for p in points if p.batch >= batch), math.inf) / 1000
        for batch, rate in mix.items()
    )
    return seconds / options.max_utilisation


@dataclass(frozen=True, slots=True)
class _Class:
    """The instances of one size of one tenant."""

    tenant: Tenant
    points: tuple[Point, ...]
    share: SizeShare

    def point(self, instances: int, options: PlanOptions) -> Point | None:
        """The largest batch that fills on each of so many instances and keeps up, if any.

        Of a tenant whose requests are batches: the smallest that holds the largest of this size.
        """
        rate, most = self.share.rate_rps / instances, max(self.share.requests_rps)
        whole, slo_ms = self.tenant.largest_request, self.tenant.slo_ms
        fits = [p for p in self.points if serves(p, rate, slo_ms, options, largest=whole)]
        if self.tenant.batch_mix:
            return next((p for p in fits if p.batch >= most), None)
        own = [p for p in fits if p.batch <= most]
        return max(own or fits, key=lambda point: point.batch, default=None)

    def least(self, options: PlanOptions) -> int:
        """Instances for its work, and as many more as it takes for its inputs to be batched."""
        first = self.share.instances
        slower = range(first, 2 * first + 2)
        return next((n for n in slower if self.point(n, options) is not None), first)

    def part(self, instances: int, options: PlanOptions) -> Part:
        """One of so many instances; where no batch fills, `assemble` says so."""
        rate = self.share.rate_rps / instances
        point = self.point(instances, options)
        if point is None and self.tenant.batch_mix:  # a smaller one would fill, but not hold it
            raise never_fills(self.tenant, self.points[-1], rate, options)
        return Part(self.tenant, point or self.points[0], rate)


def _fill_up(
    wanted: Sequence[_Class], counts: Sequence[int], devices: Devices, options: PlanOptions
) -> list[int]:
    """Add instances where there is room, always of the class that is busiest."""
    counts = list(counts)
    growing = set(range(len(wanted)))
    while growing:
        at = max(growing, key=lambda at: (wanted[at].share.busy / counts[at], -at))
        units = wanted[at].share.units
        fits = devices.has_room(units) or len(devices.parts) < (options.gpus or 0)
        if fits and wanted[at].point(counts[at] + 1, options) is not None:
            devices.place(wanted[at].part(counts[at], options))
            counts[at] += 1
        else:
            growing.remove(at)
    return counts


def _why(shares: Sequence[SizeShare]) -> str:
    return "; ".join(
        f"requests of {min(share.requests_rps)} to {max(share.requests_rps)} inputs keep "
        f"{share.busy * (1 + ROUNDING):.3g} instances of {share.units} slices busy"
        for share in shares
    )
