"""gpulet (Choi et al., ATC'22, Algorithms 1 and 2): devices split in two, tenants in turns inside.

Tenants in ascending rate × objective; each gets partitions of the smaller of two sizes: the knee
of its rate against size, and the least that serves what is left of its rate. What does not
saturate a partition first tries to join the turns of a used one.

Deviations. A rate not served by any free partition of the wanted size goes to the largest smaller
one (as the released code does; the paper fails). Tenants may join a used partition also when none
is free. Devices are added as they are needed, up to `options.gpus`, instead of planning again with
one more. The rounding of batches, the knee's rule and the worst neighbour are said in `cycle`,
`knee` and `board`. The rate margin of the released code is not modelled: the utilisation ceiling
of the options leaves room instead (1 = the paper).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan.demand import usable
from spacetime.plan.memory import holding, room_mib
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import finish
from spacetime.planners.packing.board import KIND, WHOLE, Board, Cell, Tables
from spacetime.planners.packing.cycle import ROUNDING
from spacetime.planners.packing.knee import KNEES, Knee, knee_of
from spacetime.profiles.interference import Constant, Neighbours
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Tenant, Workload

Pairs = tuple[tuple[int, int], ...]
PAIRS: Pairs = ((20, 80), (40, 60), (50, 50))


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Gpulet:
    """The planner of gpulet over the points of kind `mps`.

    `knee`: the rule of `knee.knee_of`; `none` asks for no more than the rate needs. `pairs`: the
    sizes a device may be split into, in percent. `interference`: what neighbours cost, a number for
    the same factor everywhere, None for nothing; counting it admits nothing that is refused without
    it. `share`: let tenants take turns on a partition, at most `most_tenants`. Whether a tenant
    waits for its own turn or for all is `options.turns`.

    Raises UnsupportedError naming the field.
    """

    knee: Knee = "gain"
    pairs: Pairs = PAIRS
    interference: Neighbours | float | None = None
    share: bool = True
    most_tenants: int = 3
    name: str = "gpulet"

    def __post_init__(self) -> None:
        if self.knee not in KNEES:
            raise UnsupportedError(f"knee: {self.knee!r:.40} is none of {', '.join(KNEES)}")
        for pair in self.pairs:
            if len(pair) != 2 or sum(pair) != WHOLE or min(pair) < 1:
                raise UnsupportedError(f"pairs: must be two parts of {WHOLE} percent, got {pair}")
        number = isinstance(self.interference, int | float)
        if not (number or self.interference is None or hasattr(self.interference, "factor")):
            raise UnsupportedError(
                f"interference: must be a number or a model, got {self.interference!r:.40}"
            )
        if self.most_tenants < 1:
            raise UnsupportedError(f"most_tenants: must be at least 1, got {self.most_tenants}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size a partition may have, ascending."""
        return tuple(sorted({WHOLE, *(size for pair in self.pairs for size in pair)}))

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. Raises InfeasibleError: `profile`, `latency`, or `gpus`."""
        profiles = holding(workload, profiles, device)
        if self.interference is not None:
            replace(self, interference=None).plan(workload, profiles, device, options)
        board, reasons = self.fill(workload, profiles, device, options)
        made = Plan(self.name, device.name, board.gpus(), reasons=reasons)
        return finish(made, workload, profiles, device, options)

    def fill(
        self,
        workload: Workload,
        profiles: Profiles,
        device: DeviceFacts,
        options: PlanOptions,
        layout: Sequence[tuple[int, ...]] | None = None,
    ) -> tuple[Board, tuple[Reason, ...]]:
        """Place every tenant; on devices split as `layout` says, where it is given."""
        cost = self.interference
        neighbours = Constant(cost) if isinstance(cost, int | float) else cost
        models = tuple(sorted({tenant.model for tenant in workload.tenants}))
        room = room_mib(KIND, WHOLE, device)
        board = Board(Tables(profiles, options, neighbours, models, room), self.most_tenants)
        for parts in layout or ():
            board.add_device(*parts)
        filling = Filling(self, board, options.gpus, fixed=layout is not None)
        order = sorted(workload.tenants, key=lambda t: (t.rate_rps * t.slo_ms, t.name))
        return board, tuple(filling.place(tenant) for tenant in order)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a tenant wants: `ideal` is the smaller of the knee and what its rate requires."""

    knee: int
    required: int | None

    @property
    def ideal(self) -> int:
        return self.knee if self.required is None else min(self.knee, self.required)


def sizes_for(
    tenant: Tenant, rate_rps: float, sizes: Sequence[int], tables: Tables, knee: Knee
) -> Sizes:
    """p_eff and p_req of the paper. Raises InfeasibleError: `profile` or `latency`."""
    curve = [(units, tables.saturated_rps(tenant, units)) for units in sizes]
    if not any(rate for _, rate in curve):
        usable(tenant, tables.profiles, tables.options, kind=KIND, under_ms=tenant.slo_ms / 2)
        raise InfeasibleError(
            tenant.name,
            "profile",
            f"no point of {tenant.model} has procs 1 and one of the sizes "
            f"{', '.join(map(str, sizes))} within half of {tenant.slo_ms:g} ms",
        )
    required = next((units for units, most in curve if most * (1 + ROUNDING) >= rate_rps), None)
    return Sizes(knee_of(curve, knee), required)


@dataclass(frozen=True, slots=True)
class Filling:
    """Places tenants on a board; with `fixed` no device is split or added."""

    planner: Gpulet
    board: Board
    gpus: int | None
    fixed: bool

    def place(self, tenant: Tenant) -> Reason:
        """Place all of a tenant's rate, and say why so. Raises InfeasibleError."""
        left = tenant.rate_rps
        planner, said = self.planner, []
        while left > ROUNDING * tenant.rate_rps:
            wanted = sizes_for(tenant, left, planner.sizes, self.board.tables, planner.knee)
            served, where = self._place_some(tenant, left, wanted)
            if served == 0:
                raise InfeasibleError(
                    tenant.name,
                    "gpus",
                    f"{left:.4g} of {tenant.rate_rps:.4g} req/s find no place on "
                    f"{self.board.devices} devices; {_why(wanted, planner.knee)}",
                )
            said.append(f"{served:.4g} req/s {where}: {_why(wanted, planner.knee)}")
            left -= served
        return Reason(tenant.name, "; ".join(said))

    def _place_some(self, tenant: Tenant, left: float, wanted: Sizes) -> tuple[float, str]:
        """How much of a rate was placed, and where."""
        residual = wanted.ideal == wanted.required
        if residual and (cell := self._share(tenant, left)):
            return left, f"in turns on {cell.units} percent"
        for cell in self.candidates(wanted.ideal):
            rate = min(left, self.board.tables.saturated_rps(tenant, cell.units))
            if rate > 0 and self.board.put(cell, tenant, rate):
                return rate, f"on {cell.units} percent of its own"
        if not residual and (cell := self._share(tenant, left)):
            return left, f"in turns on {cell.units} percent, for want of a free partition"
        return 0.0, ""

    def _share(self, tenant: Tenant, rate_rps: float) -> Cell | None:
        return self.board.share(tenant, rate_rps) if self.planner.share else None

    def candidates(self, ideal: int) -> Iterator[Cell]:
        """Best fit: free cells from the wanted size up, a new device, then the largest below it."""
        sizes = sorted(units for units, cells in self.board.free.items() if cells)
        for units in sizes:
            if units >= ideal:
                yield self._cut(self.board.free[units][0], ideal)
        if not self.fixed and (self.gpus is None or self.board.devices < self.gpus):
            self.board.add_device(WHOLE)
            yield self._cut(self.board.free[WHOLE][-1], ideal)
        for units in reversed(sizes):
            if units < ideal and self.board.free[units]:
                yield self.board.free[units][0]

    def _cut(self, cell: Cell, ideal: int) -> Cell:
        """The cell, or of a whole device the smallest part that is large enough."""
        if self.fixed or cell.units < WHOLE:
            return cell
        size = next(size for size in self.planner.sizes if size >= ideal)
        return cell if size == WHOLE else self.board.split(cell, size)


def _why(wanted: Sizes, rule: Knee) -> str:
    required = "more than a device" if wanted.required is None else f"{wanted.required} percent"
    return f"its rate requires {required}, the knee by {rule} is {wanted.knee} percent"
