"""Devices being split in two and filled, for the planners of percentages. Working state, no I/O.

A device has at most two cells, whose sizes sum to the whole; a cell holds tenants alone or in
turns. What a neighbour may cost is kept free beforehand: a part of a device is planned as if beside
the worst model of the workload, so nothing that is placed is slowed by what comes later. (The
released gpulet code counts the neighbour there is, then shrinks its batches and tries again.)
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from spacetime.plan.memory import process_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan
from spacetime.planners.packing.cycle import ROUNDING, Demand, Fit, alone, saturated_rps, together
from spacetime.profiles.interference import Neighbours
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant

KIND = "mps"
WHOLE = 100
Share = tuple[Tenant, float]  # and the rate of it on one cell


@dataclass(slots=True, eq=False)
class Cell:
    """A part of device `gpu`, of `units` percent."""

    gpu: int
    units: int
    loads: tuple[Share, ...] = ()
    fit: Fit = field(default=Fit((), 0.0))
    useful: float = 0.0  # the fraction of time its rates need at the least
    memory_mib: float = 0.0


@dataclass(slots=True)
class Tables:
    """What a tenant can do on a cell, from profiles; `models` may become its neighbours.

    `memory_mib` is the device's, which all its cells share.
    """

    profiles: Profiles
    options: PlanOptions
    interference: Neighbours | None = None
    models: tuple[str, ...] = ()
    memory_mib: float = math.inf
    _points: dict[tuple[str, tuple[int, ...], int], tuple[Point, ...]] = field(default_factory=dict)
    _demands: dict[tuple[str, float, int], Demand] = field(default_factory=dict)
    _saturated: dict[tuple[str, int], float] = field(default_factory=dict)
    _fastest: dict[tuple[str, int], float] = field(default_factory=dict)
    _slowdowns: dict[tuple[str, int], float] = field(default_factory=dict)

    def points(self, tenant: Tenant, units: int) -> tuple[Point, ...]:
        key = (tenant.model, (*tenant.batch_sizes, -tenant.largest_request), units)
        if (found := self._points.get(key)) is None:
            found = self._points[key] = tuple(
                point
                for point in self.profiles.batches(tenant.model, KIND, units)
                if tenant.takes(point.batch)
            )
        return found

    def demand(self, tenant: Tenant, rate_rps: float, units: int) -> Demand:
        key = (tenant.name, rate_rps, units)
        if (found := self._demands.get(key)) is None:
            slowdown = self.slowdown(tenant.model, units)
            found = Demand(tenant, rate_rps, self.points(tenant, units), slowdown)
            self._demands[key] = found
        return found

    def saturated_rps(self, tenant: Tenant, units: int) -> float:
        """The highest rate of a tenant alone on a cell."""
        key = (tenant.name, units)
        if (found := self._saturated.get(key)) is None:
            demand = self.demand(tenant, 1.0, units)
            found = self._saturated[key] = saturated_rps(demand, self.options)
        return found

    def slowdown(self, model: str, units: int) -> float:
        """What the worst neighbour would cost; a whole device has none."""
        if self.interference is None or units == WHOLE:
            return 1.0
        if (found := self._slowdowns.get((model, units))) is None:
            factor = self.interference.factor
            costs = (factor(model, units, other, WHOLE - units) for other in self.models)
            found = self._slowdowns[model, units] = max(1.0, *costs)
        return found

    def least_busy(self, tenant: Tenant, rate_rps: float, units: int) -> float:
        """A fraction of time this rate needs at the least on a cell of these units."""
        key = (tenant.name, units)
        if (fastest := self._fastest.get(key)) is None:
            rates = (point.throughput_rps for point in self.points(tenant, units))
            fastest = self._fastest[key] = max(rates, default=0.0)
        return rate_rps / fastest if fastest else math.inf

    def needed_mib(self, loads: Sequence[Share], fit: Fit, units: int) -> float:
        """The memory of a cell: a process for each tenant, whoever's turn it is."""
        if not self.profiles.states_memory:
            return 0.0
        batches = {assignment.tenant: assignment.batch for assignment in fit.assignments}
        return sum(
            process_mib(self.profiles.at(tenant.model, KIND, units, batches[tenant.name]))
            for tenant, _ in loads
        )

    def fit(self, loads: Sequence[Share], units: int) -> Fit | None:
        """How these tenants fit a cell of these units, or None."""
        demands = [self.demand(tenant, rate, units) for tenant, rate in loads]
        # One that cannot fill a batch it is bound to still can run it, padded, once a cycle.
        first = alone(demands[0], self.options) if len(demands) == 1 else None
        return first or together(demands, self.options)


@dataclass(slots=True)
class Board:
    """The cells of a plan in the making: free ones by size, used ones from busiest to idlest."""

    tables: Tables
    most_tenants: int
    free: dict[int, list[Cell]] = field(default_factory=dict)
    used: list[Cell] = field(default_factory=list)
    devices: int = 0
    needed_mib: dict[int, float] = field(default_factory=dict)  # by device

    def add_device(self, *units: int) -> None:
        """A device of one free cell, or two."""
        for size in units:
            self.free.setdefault(size, []).append(Cell(self.devices, size))
        self.devices += 1

    def split(self, cell: Cell, units: int) -> Cell:
        """The first of two parts of a free whole cell, `units` large."""
        self.free[WHOLE].remove(cell)
        parts = Cell(cell.gpu, units), Cell(cell.gpu, WHOLE - units)
        for part in parts:
            self.free.setdefault(part.units, []).append(part)
        return parts[0]

    def put(self, cell: Cell, tenant: Tenant, rate_rps: float) -> bool:
        """Add a tenant to a cell if all there still meet their objectives."""
        if any(other.name == tenant.name for other, _ in cell.loads):
            return False  # two shares of one tenant on a cell are one share
        loads = (*cell.loads, (tenant, rate_rps))
        if (found := self.tables.fit(loads, cell.units)) is None:
            return False
        cell_mib = self.tables.needed_mib(loads, found, cell.units)
        needed_mib = self.needed_mib.get(cell.gpu, 0.0) - cell.memory_mib + cell_mib
        if needed_mib > self.tables.memory_mib:
            return False
        self.needed_mib[cell.gpu], cell.memory_mib = needed_mib, cell_mib
        self.used.remove(cell) if cell.loads else self.free[cell.units].remove(cell)
        cell.loads, cell.fit = loads, found
        cell.useful += self.tables.least_busy(tenant, rate_rps, cell.units)
        insort(self.used, cell, key=_idleness)
        return True

    def share(self, tenant: Tenant, rate_rps: float) -> Cell | None:
        """The busiest used cell that takes this tenant for a turn, or None."""
        sizes = {cell.units for cell in self.used}
        least = min((self.tables.least_busy(tenant, rate_rps, u) for u in sizes), default=1.0)
        room = self.tables.options.max_utilisation * (1 + ROUNDING) - least
        for cell in self.used[bisect_left(self.used, -room, key=_idleness) :]:
            if len(cell.loads) < self.most_tenants and self.put(cell, tenant, rate_rps):
                return cell
        return None

    def gpus(self) -> tuple[GpuPlan, ...]:
        """What has been placed, as devices of a plan; idle ones are left out."""
        by_gpu: dict[int, list[Cell]] = {}
        for cell in sorted(self.used, key=lambda cell: (cell.gpu, -cell.units)):
            by_gpu.setdefault(cell.gpu, []).append(cell)
        return tuple(
            GpuPlan(number, tuple(_partitions(number, cells)))
            for number, cells in enumerate(by_gpu.values())
        )


def _idleness(cell: Cell) -> float:
    return -cell.useful


def _partitions(gpu: int, cells: Sequence[Cell]) -> Iterator[PartitionPlan]:
    for number, cell in enumerate(cells):
        assignments: tuple[Assignment, ...] = cell.fit.assignments
        yield PartitionPlan(f"g{gpu}p{number}", KIND, cell.units, assignments)
