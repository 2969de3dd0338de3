"""What PARIS is compared with (DAC'22): instances of one size, and layouts drawn at random.

Neither looks at the sizes of requests: a tenant runs the batch of highest throughput within its
objective. `homogeneous` takes the size that needs fewest devices, the paper's GPU(max), or the one
it is given; `random` deals the instances of random layouts to whoever lacks most.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import ROUNDING, Part, ceiling_rps, copies, serves, settle, usable
from spacetime.plan.memory import holding
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import assemble
from spacetime.planners.packing.mig_devices import Devices
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload


def _single(tenant: Tenant, profiles: Profiles, options: PlanOptions) -> list[Point]:
    points = [p for p in usable(tenant, profiles, options, kind="mig") if p.procs == 1]
    if not points:
        raise InfeasibleError(
            tenant.name, "latency", f"no point of one process is within {tenant.slo_ms:g} ms"
        )
    return points


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Homogeneous:
    """MIG instances of one size everywhere; `units` None for the size that needs fewest devices.

    Raises UnsupportedError for a size MIG lacks.
    """

    units: int | None = None
    name: str = "homogeneous"

    def __post_init__(self) -> None:
        if self.units is not None and self.units not in mig.SIZES:
            raise UnsupportedError(f"units: must be one of {mig.SIZES}, got {self.units}")

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError of the last size tried where none will do."""
        profiles = holding(workload, profiles, device)
        points = [(tenant, _single(tenant, profiles, options)) for tenant in workload.tenants]
        best: list[list[Part]] | None = None
        refused: InfeasibleError | None = None
        sizes = [shape.units for shape in device.geometry.shapes]
        for units in sizes if self.units is None else (self.units,):
            try:
                found = _of_size(units, points, device, options)
            except InfeasibleError as error:
                refused = error
                continue
            if best is None or len(found) < len(best):
                best = found
        if best is None:
            assert refused is not None, "a plan or a reason"
            raise refused
        return assemble(
            self.name, best, workload, profiles=profiles, device=device, options=options
        )


def _of_size(
    units: int, points: Sequence[tuple[Tenant, Sequence[Point]]], device: DeviceFacts,
    options: PlanOptions,
) -> list[list[Part]]:  # fmt: skip
    devices = Devices(two_threes=True, geometry=device.geometry)
    for tenant, every in points:
        own = [point for point in every if point.units == units]
        if not own:
            raise InfeasibleError(
                tenant.name, "latency",
                f"no instance of {units} slices answers within {tenant.slo_ms:g} ms",
            )  # fmt: skip
        number, point = copies(tenant, own, options)
        for _ in range(number):
            devices.place(Part(tenant, point))
    return devices.parts


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Maximal MIG layouts drawn at random, the same for the same `seed`."""

    seed: int = 0
    name: str = "random"

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError, with `gpus` where the draws need too many."""
        profiles = holding(workload, profiles, device)
        best: list[dict[int, Point]] = []
        for tenant in workload.tenants:
            points = [
                point
                for point in _single(tenant, profiles, options)
                if serves(point, ceiling_rps(point, options), tenant.slo_ms, options)
            ]
            points.sort(key=lambda point: point.throughput_rps)
            if not points:
                settle(tenant, _single(tenant, profiles, options), tenant.rate_rps, options)
            best.append({point.units: point for point in points})
        left = [tenant.rate_rps for tenant in workload.tenants]
        devices: list[list[Part]] = []
        for layout in self._layouts(device.geometry):
            if max(left) <= 0:
                break
            parts: list[Part] = []
            for units in layout:
                able = [at for at, rate in enumerate(left) if rate > 0 and units in best[at]]
                if not able:
                    continue
                at = max(able, key=lambda at: (left[at] / best[at][units].throughput_rps, -at))
                tenant, point = workload.tenants[at], best[at][units]
                parts.append(Part(tenant, point))
                left[at] -= ceiling_rps(point, options)
                if left[at] <= ROUNDING * tenant.rate_rps:
                    left[at] = 0.0
            devices.append(parts)
        return assemble(
            self.name, devices, workload, profiles=profiles, device=device, options=options
        )

    def _layouts(self, geometry: mig.MigGeometry) -> Iterator[tuple[int, ...]]:
        """Sizes of one device after the other, without end."""
        draw = random.Random(f"layouts/{self.seed}")
        while True:
            layout = [placement.units for placement in draw.choice(mig.maximal_layouts(geometry))]
            draw.shuffle(layout)
            yield tuple(layout)
