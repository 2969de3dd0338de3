"""ParvaGPU (SC'24): configurator, demand matching, relocation and allocation optimisation.

Implements the artifact's algorithms (its §III words are mapped in docs/papers.md). Deviations:
a partition's place is any legal one, not the first free start (the artifact's placements overlap);
batches that would not fill in time are made smaller (the artifact never looks); objectives keep
their fractions; the utilisation ceiling of the options scales every throughput (1 = the paper); the
optimisation is undone where it needs more devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import Part, at_least, ceiling_rps, serves, usable
from spacetime.plan.memory import holding
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import assemble, never_filling
from spacetime.planners.packing.mig_devices import Devices, slices
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

LIGHT = 4  # a device with at most this many slices in use is taken apart by the optimisation


@dataclass(frozen=True, slots=True)
class _Choice:
    """A tenant's points, its best by throughput per slice, and its best of each size."""

    points: tuple[Point, ...]
    best: Point
    of_size: dict[int, Point]

    def serving(self, tenant: Tenant, rate_rps: float, options: PlanOptions) -> list[Point]:
        """The points one partition can answer `rate_rps` at, its batches filling in time."""
        return [point for point in self.points if serves(point, rate_rps, tenant.slo_ms, options)]


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class ParvaGpu:
    """The planner of ParvaGPU over the MIG points of a profile.

    `slo_factor`: the part of an objective a launch may take (half for queueing, a tenth less as
    margin). `two_threes`: let two instances of three slices share a device, as the paper does not.
    `optimise` off is the paper's ablation; its other one is `max_procs=1` of the options.

    Raises UnsupportedError for a factor outside (0, 1].
    """

    slo_factor: float = 0.45
    two_threes: bool = False
    optimise: bool = True
    name: str = "parvagpu"

    def __post_init__(self) -> None:
        if not 0 < self.slo_factor <= 1:
            raise UnsupportedError(
                f"slo_factor: must be above 0 and at most 1, got {self.slo_factor}"
            )

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`; the artifact's order of tenants is alphabetical by model."""
        profiles = holding(workload, profiles, device)
        tenants = sorted(workload.tenants, key=lambda tenant: (tenant.model, tenant.name))
        choices = {
            tenant.name: choose(tenant, self._points(tenant, profiles, options))
            for tenant in tenants
        }
        parts = [
            part for tenant in tenants for part in match(tenant, choices[tenant.name], options)
        ]
        devices = self._relocate(parts, device)
        if self.optimise:
            smaller = optimise(devices, choices, options, frozenset())
            # Small parts of a slow tenant may never fill a batch: such a tenant is left whole.
            if slow := never_filling(smaller.parts, profiles, options):
                smaller = optimise(devices, choices, options, slow)
            devices = min(devices, smaller, key=Devices.used)
        reasons = [
            Reason(
                name,
                f"{_size(choice.best)} answers most per slice of all points within "
                f"{self.slo_factor:g} of the objective",
            )
            for name, choice in choices.items()
        ]
        return assemble(
            self.name,
            devices.parts,
            workload,
            profiles=profiles,
            device=device,
            options=options,
            reasons=reasons,
        )

    def _points(
        self, tenant: Tenant, profiles: Profiles, options: PlanOptions
    ) -> tuple[Point, ...]:
        limit_ms = tenant.slo_ms * self.slo_factor
        return usable(tenant, profiles, options, kind="mig", under_ms=limit_ms)

    def _relocate(self, parts: Sequence[Part], device: DeviceFacts) -> Devices:
        """Largest sizes first, each to the device it leaves least room on."""
        devices = Devices(two_threes=self.two_threes, geometry=device.geometry)
        for part in sorted(parts, key=lambda part: -part.point.units):
            devices.place(part)
        return devices


def optimise(
    devices: Devices, choices: dict[str, _Choice], options: PlanOptions, keep: frozenset[str]
) -> Devices:
    """Take light devices apart, last first, and refill gaps everywhere with small parts.

    The parts of the tenants to `keep` stay where they are.
    """
    changed = devices.copy()
    owed: dict[str, float] = defaultdict(float)
    for number in reversed(range(len(devices.parts))):
        if slices(changed.parts[number]) > LIGHT:
            continue
        taken = changed.take(
            number,
            lambda part: (
                part.tenant.name not in keep
                and bool(choices[part.tenant.name].of_size.keys() & {1, 2})
            ),
        )
        for part in taken:
            owed[part.tenant.name] += ceiling_rps(part.point, options)
        for tenant in {part.tenant.name: part.tenant for part in taken}.values():
            parts = split(tenant, choices[tenant.name], owed[tenant.name], options)
            for part in parts:
                owed[tenant.name] -= ceiling_rps(part.point, options)
                changed.place(part)
    return changed


def choose(tenant: Tenant, points: Sequence[Point]) -> _Choice:
    """The configurator: `points` in order of (units, batch, procs), so the first wins ties."""
    of_size: dict[int, Point] = {}
    for point in points:
        known = of_size.get(point.units)
        if known is None or point.throughput_rps > known.throughput_rps:
            of_size[point.units] = point
    if not of_size:
        raise InfeasibleError(tenant.name, "profile", f"no point of {tenant.model}")
    best = max(points, key=lambda point: point.throughput_rps / point.units)
    return _Choice(tuple(points), best, of_size)


def match(tenant: Tenant, choice: _Choice, options: PlanOptions) -> list[Part]:
    """Demand matching: copies of the best point, then the smallest that serves the rest.

    Where one partition is enough, it is the smallest whose batches fill, if there is one.
    """
    full = ceiling_rps(choice.best, options)
    number = at_least(tenant.rate_rps / full) - 1
    if number == 0 and (fitting := choice.serving(tenant, tenant.rate_rps, options)):
        return [Part(tenant, min(fitting, key=lambda p: (p.units, -p.throughput_rps)))]
    rest = tenant.rate_rps - number * full
    last = min(
        (
            point
            for point in choice.of_size.values()
            if at_least(rest / ceiling_rps(point, options)) == 1
        ),
        key=lambda point: point.units,
    )
    return [Part(tenant, choice.best)] * number + [Part(tenant, last)]


def split(tenant: Tenant, choice: _Choice, rate_rps: float, options: PlanOptions) -> list[Part]:
    """Parts of one and two slices that serve `rate_rps`; none where nothing is owed."""
    if rate_rps <= 0:
        return []
    one, two = choice.of_size.get(1), choice.of_size.get(2)
    if one is None and two is not None:
        return [Part(tenant, two)] * at_least(rate_rps / ceiling_rps(two, options))
    assert one is not None, "only tenants with a small point are taken apart"
    if two is None or two.throughput_rps / 2 <= one.throughput_rps:
        return [Part(tenant, one)] * at_least(rate_rps / ceiling_rps(one, options))
    pairs, rest = divmod(rate_rps, ceiling_rps(two, options))
    singles = at_least(rest / ceiling_rps(one, options)) if rest > 0 else 0
    return [Part(tenant, two)] * int(pairs) + [Part(tenant, one)] * singles


def _size(point: Point) -> str:
    return f"{point.units} slices with batch {point.batch} × {point.procs} procs"
