"""What a tenant demands of a partition it has to itself, in arithmetic every planner shares. Pure.

A tenant can use a point at a rate `r` where its batches fill in time (from below) and the
partition stays under its ceiling (from above): `r` lies in `[floor_rps, ceiling_rps]`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan.options import PlanOptions
from spacetime.plan.timing import alone_ms
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

ROUNDING = 1e-9  # relative: sums of shares are not exact


@dataclass(frozen=True, slots=True)
class Part:
    """One partition for one tenant: the point it runs at. Where it lies is decided later.

    `rate_rps`: the part of the tenant's rate it gets; None for as much as its throughput is worth.
    """

    tenant: Tenant
    point: Point
    rate_rps: float | None = None


def usable(
    tenant: Tenant,
    profiles: Profiles,
    options: PlanOptions,
    *,
    kind: str | None = None,
    under_ms: float | None = None,
    whole: bool = True,
) -> tuple[Point, ...]:
    """The points a tenant may run at, in order of (units, batch, procs): never empty.

    `under_ms`: the latency a launch may have; the tenant's objective where it is not given. Not
    `whole`: also batches too small for its largest request, for routes that know sizes.
    Raises InfeasibleError with bound `profile` or `latency`.
    """
    limit_ms = tenant.slo_ms if under_ms is None else min(under_ms, tenant.slo_ms)
    measured = tuple(
        point
        for point in profiles.of(tenant.model, kind=kind)
        if point.procs <= options.max_procs
        and (tenant.takes(point.batch) if whole else tenant.allows(point.batch))
    )
    if not measured:
        raise InfeasibleError(
            tenant.name,
            "profile",
            f"no point of {tenant.model} on {profiles.device}"
            f"{f' of kind {kind}' if kind else ''} has its batch sizes"
            f"{f' (from {tenant.largest_request})' * bool(tenant.batch_mix)} and at most "
            f"{options.max_procs} procs; profile it",
        )
    if found := tuple(point for point in measured if point.latency_ms <= limit_ms):
        return found
    fastest = min(point.latency_ms for point in measured)
    raise InfeasibleError(
        tenant.name,
        "latency",
        f"the fastest point takes {fastest:.4g} ms, the limit is {limit_ms:.4g} ms "
        f"(objective {tenant.slo_ms:g} ms)",
    )


def floor_rps(point: Point, slo_ms: float, largest: int = 1) -> float:
    """The least rate at which batches of this point fill before the objective; inf for none.

    Batches up to its `largest` request need not fill.
    """
    left_ms = slo_ms - point.latency_ms
    if point.batch <= largest:
        return 0.0 if left_ms >= 0 else math.inf
    return (point.batch - 1) / left_ms * 1000 if left_ms > 0 else math.inf


def ceiling_rps(point: Point, options: PlanOptions, *, share: float = 1.0) -> float:
    """The most a partition at this point, or a `share` of its processes, may be given."""
    return point.throughput_rps * share * options.max_utilisation


def serves(
    point: Point,
    rate_rps: float,
    slo_ms: float,
    options: PlanOptions,
    *,
    share: float = 1.0,
    largest: int = 1,
) -> bool:
    """Whether a partition of one tenant at this point answers `rate_rps` in time.

    Batches up to its `largest` request need not fill.
    """
    in_time = alone_ms(point.batch, rate_rps, point.latency_ms, largest) <= slo_ms * (1 + ROUNDING)
    return in_time and rate_rps <= ceiling_rps(point, options, share=share) * (1 + ROUNDING)


def settle(tenant: Tenant, points: Iterable[Point], rate_rps: float, options: PlanOptions) -> Point:
    """The point of highest throughput that serves a share of the tenant's rate.

    Raises InfeasibleError with bound `fill`.
    """
    points = tuple(points)
    fitting = [point for point in points if serves(point, rate_rps, tenant.slo_ms, options)]
    if fitting:
        return max(fitting, key=lambda point: (point.throughput_rps, -point.batch))
    raise never_fills(tenant, points[0], rate_rps, options)


def copies(
    tenant: Tenant, points: Sequence[Point], options: PlanOptions, *, share: float = 1.0
) -> tuple[int, Point]:
    """The fewest equal partitions that serve the whole rate, and the point each runs at.

    With `share` a copy is that part of a point's processes. More copies than a point's throughput
    needs only slow the filling of its batches, so each point is tried at exactly that number.
    Raises InfeasibleError with bound `fill`.
    """
    found = []
    for point in points:
        number = at_least(tenant.rate_rps / ceiling_rps(point, options, share=share))
        if serves(point, tenant.rate_rps / number, tenant.slo_ms, options, share=share):
            found.append((number, point))
    if not found:
        raise never_fills(tenant, points[0], tenant.rate_rps, options)
    return min(found, key=lambda pair: (pair[0], -pair[1].throughput_rps, pair[1].batch))


def never_fills(
    tenant: Tenant, point: Point, rate_rps: float, options: PlanOptions
) -> InfeasibleError:
    """The refusal of a rate that is too low to fill a batch and too high for smaller ones."""
    return InfeasibleError(
        tenant.name,
        "fill",
        f"no batch on {point.kind} {point.units} both fills and serves {rate_rps:.4g} req/s "
        f"within {tenant.slo_ms:g} ms under {options.max_utilisation:g} utilisation",
    )


def at_least(number: float) -> int:
    """The least whole number, from 1, that is not below `number` but for rounding."""
    return max(1, math.ceil(number * (1 - ROUNDING)))


def lower_bound(
    workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> int:
    """Fewer devices than this serve the workload in no plan, whatever shares a partition.

    Raises InfeasibleError where a tenant has no point at all.
    """
    return at_least(sum(bound_by_tenant(workload, profiles, device, options).values()))


def bound_by_tenant(
    workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> dict[str, float]:
    """Devices' worth of units that each tenant takes at least, in any plan.

    Each request takes at least the share of a device its tenant's most frugal point takes.
    Raises InfeasibleError where a tenant has no point at all.
    """
    frugal: dict[str, list[tuple[float, Point]]] = {}
    devices: dict[str, float] = {}
    several = Counter(tenant.model for tenant in workload.tenants)
    for tenant in workload.tenants:
        if tenant.model not in frugal:
            shared = several[tenant.model] > 1
            points = profiles.of(tenant.model) + profiles.fused(tenant.model) * shared
            frugal[tenant.model] = _frugal(points, device, options)
        shares = (
            share
            for share, point in frugal[tenant.model]
            if point.latency_ms <= tenant.slo_ms and tenant.allows(point.batch)
        )
        if (share := next(shares, None)) is None:
            usable(tenant, profiles, options, whole=False)  # which says why there is none
            raise AssertionError("a tenant without a point is refused")
        devices[tenant.name] = tenant.rate_rps * share
    return devices


def _frugal(
    points: Sequence[Point], device: DeviceFacts, options: PlanOptions
) -> list[tuple[float, Point]]:
    """A model's points, each with the part of a device a request a second takes; least first."""
    whole = {kind: device.whole(kind) for kind in {point.kind for point in points}}
    found = [
        (point.units / whole[point.kind] / ceiling_rps(point, options), point)
        for point in points
        if point.procs <= options.max_procs
    ]
    return sorted(found, key=lambda pair: pair[0])
