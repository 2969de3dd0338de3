"""iGniter (Xu et al., TPDS'23, Alg. 1 and 2): shares of a device by formula, grown until neighbours
that slow each other are in time.

A tenant's launch may take half its objective, T; the other half is for queueing. Its batch is what
arrives in T, its share the least the fitted curve needs for it (`closed_form`). In descending order
of share each tenant goes where the shares in sum grow least, a new device if nowhere: on every
device those predicted to be late get a step more until none is. A tenant that needs more than a
device gets whole ones, at nine tenths of their rate, until the rest fits.

Deviations. A share is a size the profile has (the paper: steps of 2.5 %), so that every plan can be
checked against what was measured; a share also grows while the measured point, its batches filling
and under the utilisation ceiling, does not serve the tenant. Copying inputs is not modelled apart:
it is in a profile's latencies. Where no share will do for a batch, smaller ones are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import ROUNDING, at_least, never_fills, usable
from spacetime.plan.memory import holding, process_mib, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.plan.timing import alone_ms
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.closed_form import LEAST_POINTS, Curve, fit
from spacetime.profiles.interference import Constant, Crowd
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

KIND = "mps"
WHOLE = 100
DERATED = 0.9  # of a whole device's rate
LARGEST = 32  # batch of a tenant that has whole devices


@dataclass(frozen=True, slots=True)
class Share:
    """A tenant's part of one device: `sizes` ascending, of which it has number `at`."""

    tenant: Tenant
    rate_rps: float
    batch: int
    curve: Curve
    sizes: tuple[int, ...]
    points: tuple[Point, ...]  # what was measured of the batch, by size
    at: int = 0

    @property
    def units(self) -> int:
        """Percent of the device."""
        return self.sizes[self.at]

    @property
    def point(self) -> Point:
        """What was measured at this size."""
        return self.points[self.at]

    def larger(self) -> Share | None:
        """A step more."""
        return replace(self, at=self.at + 1) if self.at + 1 < len(self.sizes) else None

    def worst_ms(self, factor: float) -> float:
        """The latency that can be promised beside neighbours that slow it so."""
        latency_ms = self.point.latency_ms * factor
        return alone_ms(self.batch, self.rate_rps, latency_ms, self.tenant.largest_request)

    def in_time(self, factor: float, options: PlanOptions) -> bool:
        """Predicted within T, and measured to keep up under the ceiling."""
        slo_ms = self.tenant.slo_ms * (1 + ROUNDING)
        full = self.point.throughput_rps * self.batch / self.point.batch / factor
        return (
            self.curve.ms(self.batch, self.units) * factor <= slo_ms / 2
            and self.worst_ms(factor) <= slo_ms
            and self.rate_rps <= full * options.max_utilisation * (1 + ROUNDING)
        )


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Igniter:
    """The planner of iGniter over the points of kind `mps`, formulas only.

    `interference`: what neighbours cost, a number for the same factor everywhere, None for nothing.
    Raises UnsupportedError for another value.
    """

    interference: Crowd | float | None = None
    name: str = "igniter"

    def __post_init__(self) -> None:
        number = isinstance(self.interference, int | float)
        if not (number or self.interference is None or hasattr(self.interference, "among")):
            raise UnsupportedError(
                f"interference: must be a number or a model, got {self.interference!r:.40}"
            )

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError: `profile`, `latency`, `fill`, `memory`, `gpus`."""
        profiles = holding(workload, profiles, device)
        curves: dict[str, Curve] = {}
        wanted: list[Share] = []
        reasons = []
        for tenant in workload.tenants:
            points = usable(tenant, profiles, replace(options, max_procs=1), kind=KIND)
            curve = curves.get(tenant.model) or _curve(tenant, profiles)
            curves[tenant.model] = curve
            shares = list(_shares(tenant, points, curve, profiles, options))
            wanted += shares
            reasons.append(Reason(tenant.name, _why(shares, curve)))
        given = self.interference
        cost = Constant(given) if isinstance(given, int | float) else given
        place = _Placing(cost, options, room_mib(KIND, WHOLE, device))
        for share in sorted(wanted, key=lambda each: -each.units):
            place.add(share)
        gpus = tuple(place.gpu(number) for number in range(len(place.devices)))
        made = Plan(self.name, device.name, gpus, reasons=tuple(reasons))
        return finish(made, workload, profiles, device, options)


def _curve(tenant: Tenant, profiles: Profiles) -> Curve:
    found = fit([p for p in profiles.of(tenant.model, kind=KIND) if p.procs == 1])
    if found is None:
        raise InfeasibleError(
            tenant.name,
            "profile",
            f"fitting takes {LEAST_POINTS} points of {tenant.model} of kind {KIND} and two sizes",
        )
    return found


def _shares(
    tenant: Tenant, points: Sequence[Point], curve: Curve, profiles: Profiles, options: PlanOptions
) -> Iterator[Share]:
    """Whole devices until the rest fits one, and the rest."""
    rate = tenant.rate_rps
    whole = _whole_device(tenant, points, curve, profiles, options)
    while rate > ROUNDING * tenant.rate_rps:
        if (last := _least(tenant, rate, curve, profiles, options)) is not None:
            yield last
            return
        if whole is None or whole.rate_rps >= rate * (1 - ROUNDING):
            raise never_fills(tenant, points[-1], rate, options)
        yield whole
        rate -= whole.rate_rps


def _least(
    tenant: Tenant, rate_rps: float, curve: Curve, profiles: Profiles, options: PlanOptions
) -> Share | None:
    """The batch that arrives in half the objective, or a smaller one, on the least share."""
    # A batch is what arrives in T; nothing is loaded beside the launch.
    due = max(at_least(tenant.slo_ms / 2000 * rate_rps), tenant.largest_request)
    sizes = {p.batch for p in profiles.of(tenant.model, kind=KIND) if tenant.takes(p.batch)}
    first = {due} if not tenant.batch_sizes else {min((b for b in sizes if b >= due), default=0)}
    for batch in sorted(first | {b for b in sizes if b < due}, reverse=True):
        share = _at(tenant, rate_rps, batch, curve, profiles)
        while share is not None and (
            share.units < curve.least_units(batch, tenant.slo_ms / 2) * (1 - ROUNDING)
            or not share.in_time(1.0, options)
        ):
            share = share.larger()
        if share is not None:
            return share
    return None


def _at(
    tenant: Tenant, rate_rps: float, batch: int, curve: Curve, profiles: Profiles
) -> Share | None:
    """On the least size that was measured at this batch."""
    sizes = sorted({p.units for p in profiles.of(tenant.model, kind=KIND) if p.units <= WHOLE})
    found = [profiles.at(tenant.model, KIND, units, batch, 1) for units in sizes if batch]
    points = tuple(point for point in found if point is not None)
    if not points:
        return None
    return Share(tenant, rate_rps, batch, curve, tuple(p.units for p in points), points)


def _whole_device(
    tenant: Tenant, points: Sequence[Point], curve: Curve, profiles: Profiles, options: PlanOptions
) -> Share | None:
    """All of a device at its largest batch in time, at nine tenths of its rate."""
    fast = [
        p for p in points if p.units == WHOLE and p.batch <= max(LARGEST, tenant.largest_request)
    ]
    for point in sorted(fast, key=lambda p: -p.batch):
        rate = point.throughput_rps * min(DERATED, options.max_utilisation)
        share = _at(tenant, rate, point.batch, curve, profiles)
        if share is None or share.sizes[-1] != WHOLE:
            continue
        share = replace(share, at=len(share.sizes) - 1)
        if share.in_time(1.0, options):
            return share
    return None


def _why(shares: Sequence[Share], curve: Curve) -> str:
    last = shares[-1]
    wholes = f"{len(shares) - 1} whole devices and " * (len(shares) > 1)
    return (
        f"{wholes}{last.units} % alone: batches of {last.batch} take "
        f"{curve.ms(last.batch, last.units):.4g} ms by the fitted curve (off by {curve.error:.1%} "
        f"on average), half the objective is {last.tenant.slo_ms / 2:.4g} ms"
    )


@dataclass(slots=True)
class _Placing:
    """Devices being filled with shares that may grow."""

    cost: Crowd | None
    options: PlanOptions
    room_mib: float
    devices: list[list[Share]] = field(default_factory=list)

    def add(self, share: Share) -> None:
        """Where the shares in sum grow least; the first of equals, or a new device."""
        best: tuple[int, int, list[Share]] | None = None
        for number, held in enumerate(self.devices):
            used = sum(each.units for each in held)
            if used + share.units > WHOLE or (best and share.units >= best[0]):
                continue
            if (grown := self.grown([*held, share])) is not None:
                more = sum(each.units for each in grown) - used
                if best is None or more < best[0]:
                    best = (more, number, grown)
        if best is None:
            self.devices.append([share])
        else:
            self.devices[best[1]] = best[2]

    def grown(self, shares: list[Share]) -> list[Share] | None:
        """The shares with a step more for whoever is late, until none is; None beyond a device."""
        if sum(process_mib(share.point) for share in shares) > self.room_mib * (1 + ROUNDING):
            return None
        while sum(share.units for share in shares) <= WHOLE:
            late = [
                number
                for number, share in enumerate(shares)
                if not share.in_time(self.factor(shares, number), self.options)
            ]
            if not late:
                return shares
            shares = list(shares)
            for number in late:
                larger = shares[number].larger()
                if larger is None:
                    return None
                shares[number] = larger
        return None

    def factor(self, shares: Sequence[Share], number: int) -> float:
        """How much longer one takes beside the others."""
        own = shares[number]
        others = [(s.tenant.model, s.units) for n, s in enumerate(shares) if n != number]
        if self.cost is None or not others:
            return 1.0
        return max(1.0, self.cost.among(own.tenant.model, own.units, others))

    def gpu(self, number: int) -> GpuPlan:
        """One device of the plan."""
        shares = self.devices[number]
        return GpuPlan(
            number,
            tuple(
                PartitionPlan(
                    f"g{number}p{index}",
                    KIND,
                    share.units,
                    (
                        Assignment(
                            share.tenant.name,
                            share.batch,
                            share.rate_rps,
                            share.worst_ms(self.factor(shares, index)),
                        ),
                    ),
                )
                for index, share in enumerate(shares)
            ),
        )
