"""The integer program of `exact`, and its solver: HiGHS through scipy.

Columns: how many partitions a tenant has at each point, then how many devices have each layout. A
tenant's rate can be split over its partitions where it lies between the sum of the rates their
batches need to fill and the sum of what they may be given; so fill time, ceiling and objectives
are linear.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from spacetime.devices.facts import DeviceFacts
from spacetime.plan.demand import ROUNDING, ceiling_rps, floor_rps, never_fills, usable
from spacetime.plan.options import PlanOptions
from spacetime.planners.packing.layouts import Size, layouts
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

INFEASIBLE = 2  # scipy's status of milp


class Constraint(NamedTuple):
    """A constraint: `low` <= sum of coefficient times column <= `high`."""

    coefficients: dict[int, float]
    low: float
    high: float


class Column(NamedTuple):
    """A tenant at a point, and the rates one partition there can be given."""

    tenant: Tenant
    point: Point
    low_rps: float
    high_rps: float

    @property
    def size(self) -> Size:
        """The partition it takes."""
        return self.point.kind, self.point.units


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found: whole numbers by column, or None; a bound of the objective."""

    values: tuple[int, ...] | None
    bound: float
    infeasible: bool = False


@dataclass(frozen=True, slots=True)
class IntegerProgram:
    """The constraints every plan keeps; objectives are added when solving."""

    columns: tuple[Column, ...]
    layouts: tuple[dict[Size, int], ...]
    rows: tuple[Constraint, ...]

    def devices(self) -> dict[int, float]:
        """The number of devices, as coefficients by column."""
        first = len(self.columns)
        return {first + number: 1.0 for number in range(len(self.layouts))}

    def used(self, device: DeviceFacts) -> dict[int, float]:
        """The devices' worth of units that partitions take."""
        return {
            number: column.point.units / device.whole(column.point.kind)
            for number, column in enumerate(self.columns)
        }

    def headroom(self) -> tuple[int, list[Constraint]]:
        """One more column, the factor every rate can grow by, and the rows that hold it."""
        extra = len(self.columns) + len(self.layouts)
        rows = [
            Constraint({**{i: self.columns[i].point.throughput_rps / tenant.rate_rps for i in own},
                 extra: -1.0}, 0, np.inf)
            for tenant, own in _by_tenant(self.columns)
        ]  # fmt: skip
        return extra, rows

    def solve(self, objective: dict[int, float], nodes: int, more: Sequence[Constraint] = (),
              extra: int = 0, gap: float = 0.0) -> Solution:  # fmt: skip
        """Minimise, looking at no more than `nodes` of the search tree: work, which is the same on
        every machine, unlike time. `extra` columns after the program's own are fractions. With a
        `gap` a plan is enough whose objective is off by no more than that part."""
        width = len(self.columns) + len(self.layouts) + extra
        costs = np.zeros(width)
        costs[list(objective)] = list(objective.values())
        integral = np.ones(width)
        integral[width - extra :] = 0
        found = milp(
            costs, integrality=integral, bounds=Bounds(0, np.inf),
            constraints=_matrix([*self.rows, *more], width),
            options={"node_limit": nodes, "mip_rel_gap": gap},
        )  # fmt: skip
        whole = width - extra
        values = None if found.x is None else tuple(round(float(x)) for x in found.x[:whole])
        bound = getattr(found, "mip_dual_bound", None)
        return Solution(values, 0.0 if bound is None else float(bound), found.status == INFEASIBLE)


def build(
    workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions, *,
    most_parts: int | None = None, slo_factor: float = 1.0,
) -> IntegerProgram:  # fmt: skip
    """The program of a workload. Raises InfeasibleError for a tenant no point serves."""
    columns = tuple(
        column
        for tenant in workload.tenants
        for column in _columns(tenant, profiles, options, tenant.slo_ms * slo_factor)
    )
    shapes = layouts({column.size for column in columns}, device, most_parts=most_parts)
    return IntegerProgram(
        columns, shapes, (*demand_rows(columns), *_capacity_rows(columns, shapes))
    )


def _columns(
    tenant: Tenant, profiles: Profiles, options: PlanOptions, under_ms: float
) -> list[Column]:
    """A tenant's points, less those another of the same size can always stand in for."""
    kept: list[Column] = []
    every = [
        Column(
            tenant,
            point,
            floor_rps(point, tenant.slo_ms, tenant.largest_request),
            ceiling_rps(point, options),
        )
        for point in usable(tenant, profiles, options, under_ms=under_ms)
    ]
    # Widest first, so that whatever covers a point is already kept when its turn comes.
    for column in sorted(every, key=lambda c: (c.size, c.low_rps, -c.high_rps)):
        covered = any(
            other.size == column.size and other.high_rps >= column.high_rps for other in kept
        )
        if not covered and column.low_rps <= column.high_rps * (1 + ROUNDING):
            kept.append(column)
    if not kept:
        raise never_fills(tenant, every[0].point, tenant.rate_rps, options)
    return kept


def _by_tenant(columns: Sequence[Column]) -> list[tuple[Tenant, list[int]]]:
    found: dict[str, tuple[Tenant, list[int]]] = {}
    for number, column in enumerate(columns):
        found.setdefault(column.tenant.name, (column.tenant, []))[1].append(number)
    return list(found.values())


def demand_rows(columns: Sequence[Column]) -> list[Constraint]:
    """For each tenant: its partitions can take its rate, and its rate can fill their batches."""
    rows = []
    for tenant, own in _by_tenant(columns):
        rate = tenant.rate_rps
        rows.append(Constraint({i: columns[i].high_rps / rate for i in own}, 1 - ROUNDING, np.inf))
        rows.append(Constraint({i: columns[i].low_rps / rate for i in own}, 0, 1 + ROUNDING))
    return rows


def _capacity_rows(
    columns: Sequence[Column], shapes: Sequence[dict[Size, int]]
) -> list[Constraint]:
    taken: dict[Size, dict[int, float]] = defaultdict(dict)
    for number, column in enumerate(columns):
        taken[column.size][number] = 1.0
    for number, shape in enumerate(shapes, start=len(columns)):
        for size, count in shape.items():
            taken[size][number] = -float(count)
    return [Constraint(coefficients, -np.inf, 0) for coefficients in taken.values()]


def _matrix(rows: Sequence[Constraint], width: int) -> LinearConstraint:
    entries = [(i, j, value) for i, row in enumerate(rows) for j, value in row.coefficients.items()]
    at, columns, values = zip(*entries, strict=True)
    matrix = csr_array((values, (at, columns)), shape=(len(rows), width))
    return LinearConstraint(matrix, [row.low for row in rows], [row.high for row in rows])
