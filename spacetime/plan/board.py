"""Devices being split in two and filled, for the planners of percentages. Working state, no I/O.

A device has at most two cells, whose sizes sum to the whole; a cell holds tenants alone or in
turns. What a neighbour slows is counted in every cell before a tenant is accepted.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from spacetime.interference import Neighbours
from spacetime.plan.cycle import ROUNDING, Demand, Fit, alone, saturated_rps, together
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan
from spacetime.plan.planner import PlanOptions
from spacetime.profile import Point, Profiles
from spacetime.workload import Tenant

KIND = "mps"
WHOLE = 100
Share = tuple[Tenant, float]  # and the rate of it on one cell


@dataclass(slots=True, eq=False)
class Cell:
    """A part of device `gpu`, of `units` percent; `beside` is the other part, if there are two."""

    gpu: int
    units: int
    beside: Cell | None = None
    loads: tuple[Share, ...] = ()
    fit: Fit = field(default=Fit((), 0.0))
    useful: float = 0.0  # the fraction of time its rates need at the least

    @property
    def neighbours(self) -> tuple[Share, ...]:
        return self.beside.loads if self.beside else ()


@dataclass(slots=True)
class Tables:
    """What a tenant can do on a cell, from profiles; slowed by the neighbours a cell has."""

    profiles: Profiles
    options: PlanOptions
    interference: Neighbours | None = None
    _points: dict[tuple[str, tuple[int, ...], int], tuple[Point, ...]] = field(default_factory=dict)
    _saturated: dict[tuple[str, int], float] = field(default_factory=dict)
    _fastest: dict[tuple[str, int], float] = field(default_factory=dict)
    _slowdowns: dict[tuple[str, int, str], float] = field(default_factory=dict)

    def points(self, tenant: Tenant, units: int) -> tuple[Point, ...]:
        key = (tenant.model, tenant.batch_sizes, units)
        if (found := self._points.get(key)) is None:
            found = self._points[key] = tuple(
                point
                for point in self.profiles.batches(tenant.model, KIND, units)
                if not tenant.batch_sizes or point.batch in tenant.batch_sizes
            )
        return found

    def saturated_rps(self, tenant: Tenant, units: int) -> float:
        """The highest rate of a tenant alone on its device but for idle neighbours."""
        key = (tenant.name, units)
        if (found := self._saturated.get(key)) is None:
            demand = Demand(tenant, 1.0, self.points(tenant, units))
            found = self._saturated[key] = saturated_rps(demand, self.options)
        return found

    def slowdown(self, tenant: Tenant, units: int, beside: Cell | None) -> float:
        if self.interference is None or beside is None:
            return 1.0
        return max((self._beside(tenant, units, other) for other, _ in beside.loads), default=1.0)

    def _beside(self, tenant: Tenant, units: int, other: Tenant) -> float:
        key = (tenant.model, units, other.model)
        if (found := self._slowdowns.get(key)) is None:
            assert self.interference is not None, "only asked for where there is a model"
            found = self.interference.factor(*key, WHOLE - units)
            found = self._slowdowns[key] = max(1.0, found)
        return found

    def least_busy(self, tenant: Tenant, rate_rps: float, units: int) -> float:
        """A fraction of time this rate needs at the least on a cell of these units."""
        key = (tenant.name, units)
        if (fastest := self._fastest.get(key)) is None:
            rates = (point.throughput_rps for point in self.points(tenant, units))
            fastest = self._fastest[key] = max(rates, default=0.0)
        return rate_rps / fastest if fastest else math.inf

    def fit(self, loads: Sequence[Share], units: int, beside: Cell | None) -> Fit | None:
        """How these tenants fit a cell of these units beside that neighbour, or None."""
        demands = [
            Demand(tenant, rate, self.points(tenant, units), self.slowdown(tenant, units, beside))
            for tenant, rate in loads
        ]
        # One that cannot fill a batch it is bound to still can run it, padded, once a cycle.
        first = alone(demands[0], self.options) if len(demands) == 1 else None
        return first or together(demands, self.options)

    def most_rps(self, tenant: Tenant, cell: Cell) -> float:
        """The highest rate of a tenant alone on a cell with the neighbours it has."""
        slowdown = self.slowdown(tenant, cell.units, cell.beside)
        if slowdown == 1:
            return self.saturated_rps(tenant, cell.units)
        points = self.points(tenant, cell.units)
        return saturated_rps(Demand(tenant, 1.0, points, slowdown), self.options)


@dataclass(slots=True)
class Board:
    """The cells of a plan in the making: free ones by size, used ones from busiest to idlest."""

    tables: Tables
    most_tenants: int
    free: dict[int, list[Cell]] = field(default_factory=dict)
    used: list[Cell] = field(default_factory=list)
    devices: int = 0

    def add_device(self, *units: int) -> None:
        """A device of one free cell, or two."""
        cells = [Cell(self.devices, size) for size in units]
        if len(cells) == 2:
            cells[0].beside, cells[1].beside = cells[1], cells[0]
        for cell in cells:
            self.free.setdefault(cell.units, []).append(cell)
        self.devices += 1

    def split(self, cell: Cell, units: int) -> Cell:
        """The first of two parts of a free whole cell, `units` large."""
        self.free[WHOLE].remove(cell)
        first, second = Cell(cell.gpu, units), Cell(cell.gpu, WHOLE - units)
        first.beside, second.beside = second, first
        for part in (first, second):
            self.free.setdefault(part.units, []).append(part)
        return first

    def put(self, cell: Cell, tenant: Tenant, rate_rps: float) -> bool:
        """Add a tenant to a cell if all there and beside it still meet their objectives."""
        if any(other.name == tenant.name for other, _ in cell.loads):
            return False  # two shares of one tenant on a cell are one share
        loads = (*cell.loads, (tenant, rate_rps))
        found = self.tables.fit(loads, cell.units, cell.beside)
        if found is None or not self._spares_neighbour(cell, loads):
            return False
        self._drop(cell)
        cell.loads, cell.fit = loads, found
        self._keep(cell)
        return True

    def _spares_neighbour(self, cell: Cell, loads: tuple[Share, ...]) -> bool:
        """Fit the neighbour again beside `loads`; it keeps its rates or refuses them."""
        beside = cell.beside
        if self.tables.interference is None or beside is None or not beside.loads:
            return True
        found = self.tables.fit(beside.loads, beside.units, Cell(cell.gpu, cell.units, None, loads))
        if found is None:
            return False
        self._drop(beside)
        beside.fit = found
        self._keep(beside)
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

    def _drop(self, cell: Cell) -> None:
        self.used.remove(cell) if cell.loads else self.free[cell.units].remove(cell)

    def _keep(self, cell: Cell) -> None:
        cell.useful = sum(
            self.tables.least_busy(tenant, rate, cell.units) for tenant, rate in cell.loads
        )
        insort(self.used, cell, key=_idleness)

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
