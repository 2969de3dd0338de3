"""`spacetime simulate PLAN --controller`: a plan under rates that change, and its moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.devices import device_file
from spacetime.plan import Plan, PlanOptions, require
from spacetime.plan.controller import Controller, ControllerOptions, Decision, PeriodCounts
from spacetime.plan.plan_json import read_plan
from spacetime.planners.registry import planner
from spacetime.policy import Policy
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.changing_rates import (
    Decider,
    DynamicOptions,
    DynamicRun,
    simulate_dynamic,
)
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload.rate_trace import RateTrace, bursty, diurnal
from spacetime.workload.workload import Tenant, Workload
from spacetime.workload.workload_file import read_workload

SECONDS = 600.0  # of a simulation, where no --duration is given


@dataclass(frozen=True, kw_only=True)
class SimulateControlledCommand:
    """The options of `spacetime simulate --controller`. `duration` and `period` are in seconds;
    `maker` is the planner that plans anew."""

    plan: Path
    workload: Path
    profiles: Path
    policy: str | None
    device: str | None
    duration: float | None
    seed: int | None
    rates: str
    maker: str
    period: float
    start_ms: float
    gpus: int | None
    as_json: bool


def run(asked: SimulateControlledCommand) -> None:
    """Simulate and print what the controller did, or the same as JSON.

    Raises PlanError, UnsupportedError and what the readers of the files raise.
    """
    load, points = read_workload(asked.workload), read_profiles(asked.profiles)
    first, facts = read_plan(asked.plan), device_file.device_named(asked.device or points.device)
    maker = planner(asked.maker)

    def planning(changed: Workload) -> Plan:
        plan = maker.plan(changed, points, facts, PlanOptions())
        return require(plan, changed, points, facts)

    seed = load.seed if asked.seed is None else asked.seed
    seconds = SECONDS if asked.duration is None else asked.duration
    trace = changing(asked.rates, load, seconds, seed)
    controller = Controller(first, load, planning, ControllerOptions(gpus=asked.gpus))
    options = DynamicOptions(
        period_s=asked.period,
        start_ms=asked.start_ms,
        seed=asked.seed,
        policy=None if asked.policy is None else Policy.named(asked.policy),
    )
    with working("simulating", trace.end_ns) as done:
        shown = _Shown(controller, done)
        simulated = simulate_dynamic(first, load, points, trace, decider=shown, options=options)
    if asked.as_json:
        print(json.dumps(report(simulated, load), indent=2))
    else:
        print_moves(simulated, load)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A decider that shows how far the simulation is."""

    decider: Decider
    done: Callable[[float], None]

    def observe(self, now_ns: int, seen: Sequence[PeriodCounts]) -> Decision:
        self.done(now_ns)
        return self.decider.observe(now_ns, seen)

    def moved(self, now_ns: int) -> None:
        self.decider.moved(now_ns)


def changing(rates: str, load: Workload, seconds: float, seed: int) -> RateTrace:
    """The workload's rates as a day, as bursts, or as they are."""
    if rates == "diurnal":
        return diurnal(load, seconds=seconds, seed=seed)
    if rates == "bursty":
        return bursty(load, seconds=seconds, seed=seed)
    return RateTrace(seconds, (tuple(tenant.rate_rps for tenant in load.tenants),))


def report(run: DynamicRun, load: Workload) -> dict[str, Any]:
    """All figures of the run, by name."""
    return {
        "format": "spacetime.dynamic/1",
        "seconds": run.seconds,
        "device_s": run.device_s,
        "short_s": run.short_s,
        "attainment": run.attainment,
        "tenants": {
            tenant.name: {"offered": offered, "met": met}
            for tenant, (offered, met) in zip(load.tenants, run.tenants, strict=True)
        },
        "moves": [asdict(move) for move in run.moves],
        "refused": [{"at_ns": at, "why": why} for at, why in run.refused],
        "periods": [asdict(period) for period in run.periods],
    }


def print_moves(run: DynamicRun, load: Workload) -> None:
    """The moves as a table, the tenants' attainment, and the sums."""
    console = Console()
    rows = [
        (
            *("-" if time is None else f"{time / SECOND:.1f}"
              for time in (move.decided_ns, move.routed_ns, move.closed_ns)),
            str(move.devices), str(move.gpus), f"{move.missed:,} of {move.ended:,}", move.why,
        )
        for move in run.moves
    ]  # fmt: skip
    heads = ("at s", "serves at s", "closed at s", "devices", "then", "missed", "why")
    console.print(FittedTable(heads, rows, words=("why",)))
    for at, why in run.refused:
        console.print(f"{at / SECOND:.1f} s: refused: {why}", highlight=False, soft_wrap=True)
    served = zip(load.tenants, run.tenants, strict=True)
    worst, (offered, met) = min(served, key=_part_met)
    console.print(
        f"{run.device_s / 3600:.3f} device-hours in {run.seconds:g} s, {len(run.moves)} moves; "
        f"{run.attainment:.2%} of {sum(offered for offered, _ in run.tenants):,} requests in time, "
        f"{worst.name} {met / max(offered, 1):.2%}; {run.short_s:g} s without capacity",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _part_met(served: tuple[Tenant, tuple[int, int]]) -> float:
    """The part of a tenant's requests that were answered in time; 0 where there were none."""
    _, (offered, met) = served
    return met / max(offered, 1)
