"""`exact`: the fewest devices there can be, by integer programming over the profiles' points.

Each partition has one tenant, as in ParvaGPU and iGniter; plans that share a partition in time may
need fewer. Among plans of fewest devices it takes one that strands fewest units, and among those
one of most headroom. At its limit of work it returns the best plan known, and the bound proven.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError, ProfileError, UnsupportedError
from spacetime.plan.demand import Part
from spacetime.plan.memory import fits, holding
from spacetime.plan.options import Planner, PlanOptions
from spacetime.plan.plan import Plan, Reason
from spacetime.planners.baselines import MigOnly, WholeGpu
from spacetime.planners.gate import gated
from spacetime.planners.packing.assemble import assemble
from spacetime.planners.packing.integer import (
    Column,
    Constraint,
    IntegerProgram,
    build,
    demand_rows,
)
from spacetime.planners.packing.layouts import Size
from spacetime.planners.parvagpu import ParvaGpu
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload

GAP = 0.05  # of what is decided among plans of as few devices; to prove more takes most of the time
WHOLE = 1e-6  # how far the solver's bound may be from a whole number it means


@gated
@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """`nodes`: how much of its tree the solver may search. `most_parts`: partitions a device may
    have.

    `slo_factor`: the part of an objective a launch may take (1: only the checker's own bounds;
    0.45: ParvaGPU's rule). Raises UnsupportedError naming the field.
    """

    nodes: int = 2000
    most_parts: int | None = None
    slo_factor: float = 1.0
    name: str = "exact"

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise UnsupportedError(f"nodes: must be at least 1, got {self.nodes}")
        if not 0 < self.slo_factor <= 1:
            raise UnsupportedError(
                f"slo_factor: must be above 0 and at most 1, got {self.slo_factor}"
            )

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """See `Planner`. `lower_bound_gpus` is the proven one, for one tenant a partition."""
        profiles = holding(workload, profiles, device)
        program = build(
            workload, profiles, device, options,
            most_parts=self.most_parts, slo_factor=self.slo_factor,
        )  # fmt: skip
        fewest = program.solve(program.devices(), self.nodes)
        if fewest.infeasible:
            raise _who_never_fits(program, options)
        bound = max(1, math.ceil(fewest.bound - WHOLE))
        found = None
        if fewest.values is not None:
            found = self._assembled(
                program, fewest.values,
                workload=workload, profiles=profiles, device=device, options=options,
            )  # fmt: skip
        if found is None or len(found.gpus) > bound:
            known = self._heuristic(workload, profiles, device, options)
            found = min((p for p in (found, known) if p), key=lambda p: len(p.gpus), default=None)
        if found is None:
            raise InfeasibleError(
                workload.tenants[0].name, "time",
                f"no plan was found in {self.nodes} nodes; give it more",
            )  # fmt: skip
        return self._stated(found, max(bound, found.lower_bound_gpus or 1), workload, options)

    def _assembled(
        self, program: IntegerProgram, values: tuple[int, ...], *, workload: Workload,
        profiles: Profiles, device: DeviceFacts, options: PlanOptions,
    ) -> Plan | None:  # fmt: skip
        """The plan of a solution; None where a device's memory cannot be shared in any way tried.

        Memory that partitions share is no part of the program: where the solution exceeds it, a
        partition is held to its units' share of it. The bound proven stays one.
        """
        unlimited = replace(options, gpus=None)
        try:
            return assemble(
                self.name, _devices(program, self._refine(program, values, device)), workload,
                profiles=profiles, device=device, options=unlimited,
            )  # fmt: skip
        except InfeasibleError as refusal:
            if refusal.bound != "memory":
                raise
        shares = tuple(point for point in profiles if fits(point, device, share=True))
        try:
            program = build(
                workload, Profiles(shares), device, options,
                most_parts=self.most_parts, slo_factor=self.slo_factor,
            )  # fmt: skip
            found = program.solve(program.devices(), self.nodes).values
            return None if found is None else assemble(
                self.name, _devices(program, found), workload,
                profiles=Profiles(shares), device=device, options=unlimited,
            )  # fmt: skip
        except (InfeasibleError, ProfileError):
            return None

    @property
    def _finer(self) -> int:
        """Nodes for what is decided among plans of as few devices."""
        return max(1, self.nodes // 200)

    def _refine(
        self, program: IntegerProgram, values: tuple[int, ...], device: DeviceFacts
    ) -> tuple[int, ...]:
        """As few devices, then as many of their units in use as can be, then most headroom."""
        devices, used = program.devices(), program.used(device)
        fixed = [Constraint(devices, 0, sum(values[i] for i in devices))]
        least = {i: -share for i, share in used.items()}
        wider = program.solve(least, self._finer, fixed, gap=GAP)
        values = wider.values or values
        fixed.append(Constraint(used, sum(used[i] * values[i] for i in used) - WHOLE, math.inf))
        factor, rows = program.headroom()
        freer = program.solve({factor: -1.0}, self._finer, [*fixed, *rows], 1, GAP)
        return freer.values or values

    def _heuristic(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan | None:
        """The best plan that needs no search and keeps what this planner must, or None."""
        factor = min(self.slo_factor, ParvaGpu().slo_factor)
        planners: list[Planner] = [
            ParvaGpu(slo_factor=factor, two_threes=both) for both in (False, True)
        ]
        if self.slo_factor == 1:
            planners += [MigOnly(), WholeGpu()]
        unlimited = replace(options, gpus=None)
        plans = [_attempt(each, workload, profiles, device, unlimited) for each in planners]
        return min(
            (
                plan
                for plan in plans
                if plan is not None
                and (
                    self.most_parts is None
                    or all(len(gpu.partitions) <= self.most_parts for gpu in plan.gpus)
                )
            ),
            key=lambda plan: len(plan.gpus),
            default=None,
        )

    def _stated(self, plan: Plan, bound: int, workload: Workload, options: PlanOptions) -> Plan:
        needed = len(plan.gpus)
        if options.gpus is not None and needed > options.gpus:
            raise InfeasibleError(
                plan.gpus[options.gpus].partitions[0].tenants[0].tenant, "gpus",
                f"needs {needed} devices, there are {options.gpus} "
                f"(none with one tenant a partition needs fewer than {bound})",
            )  # fmt: skip
        proof = (
            f"{needed} devices are the fewest" if bound == needed
            else f"{needed} devices, proven so far: at least {bound}"
        )  # fmt: skip
        why = tuple(Reason(tenant.name, f"{proof} with one tenant a partition")
                    for tenant in workload.tenants)  # fmt: skip
        return replace(plan, planner=self.name, lower_bound_gpus=bound, reasons=why)


def _who_never_fits(program: IntegerProgram, options: PlanOptions) -> InfeasibleError:
    """A tenant whose rate no number of partitions splits into: some batch never fills."""
    own: dict[str, list[Column]] = defaultdict(list)
    for column in program.columns:
        own[column.tenant.name].append(column)
    for name, columns in own.items():
        alone = IntegerProgram(tuple(columns), (), tuple(demand_rows(columns)))
        if alone.solve({}, 1000).infeasible:
            return InfeasibleError(
                name, "fill",
                f"no split of {columns[0].tenant.rate_rps:.4g} req/s both fills its batches and "
                f"keeps every partition under {options.max_utilisation:g} utilisation",
            )  # fmt: skip
    return InfeasibleError(next(iter(own)), "layout", "no layout holds all tenants")


def _devices(program: IntegerProgram, values: Sequence[int]) -> list[list[Part]]:
    """The solver's numbers as parts on devices; slots nothing takes stay empty."""
    waiting: dict[Size, list[Part]] = defaultdict(list)
    chosen: dict[str, list[Column]] = defaultdict(list)
    for column, number in zip(program.columns, values, strict=False):
        chosen[column.tenant.name] += [column] * number
    for columns in chosen.values():
        for column, rate in zip(columns, shares(columns), strict=True):
            waiting[column.size].append(Part(column.tenant, column.point, rate))
    return [
        [
            waiting[size].pop()
            for size, count in layout.items()
            for _ in range(min(count, len(waiting[size])))
        ]
        for layout, number in zip(program.layouts, values[len(program.columns) :], strict=True)
        for _ in range(number)
    ]


def shares(columns: Sequence[Column]) -> list[float]:
    """A tenant's rate over its partitions: equally busy, but no less than their batches need."""
    rate = columns[0].tenant.rate_rps
    low, high = 0.0, 1.0
    for _ in range(60):
        busy = (low + high) / 2
        split = [max(column.low_rps, busy * column.high_rps) for column in columns]
        low, high = (busy, high) if sum(split) < rate else (low, busy)
    split = [max(column.low_rps, high * column.high_rps) for column in columns]
    return [share * rate / sum(split) for share in split]


def _attempt(
    planner: Planner, workload: Workload, profiles: Profiles, device: DeviceFacts,
    options: PlanOptions,
) -> Plan | None:  # fmt: skip
    try:
        return planner.plan(workload, profiles, device, options)
    except InfeasibleError:
        return None
