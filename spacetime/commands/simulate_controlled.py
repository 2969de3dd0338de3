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
from spacetime.plan.controller import Controller, ControllerOptions, Decision, Seen
from spacetime.plan.plan_json import read_plan
from spacetime.planners.registry import planner
from spacetime.policy import Policy
from spacetime.profiles import profile_file
from spacetime.simulation.changing_rates import (
    Decider,
    DynamicOptions,
    DynamicRun,
    simulate_dynamic,
)
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.units import SECOND
from spacetime.workload import workload_file
from spacetime.workload.rate_trace import RateTrace, bursty, diurnal
from spacetime.workload.workload import Workload


def from_options(
    *,
    plan: Path,
    workload: Path,
    profiles: Path,
    policy: str | None,
    device: str | None,
    duration: float | None,
    seed: int | None,
    rates: str,
    maker: str,
    period: float,
    start_ms: float,
    gpus: int | None,
    as_json: bool,
) -> None:
    """Simulate and print what the controller did, or the same as JSON.

    Raises PlanError, UnsupportedError and what the readers of the files raise.
    """
    load, points = workload_file.read(workload), profile_file.read(profiles)
    first, facts = read_plan(plan), device_file.named(device or points.device)
    made = planner(maker)

    def planning(asked: Workload) -> Plan:
        found = made.plan(asked, points, facts, PlanOptions())
        return require(found, asked, points, facts)

    drawn = load.seed if seed is None else seed
    trace = changing(rates, load, 600.0 if duration is None else duration, drawn)
    controller = Controller(first, load, planning, ControllerOptions(gpus=gpus))
    options = DynamicOptions(
        period_s=period, start_ms=start_ms, seed=seed,
        policy=None if policy is None else Policy.named(policy),
    )  # fmt: skip
    with working("simulating", trace.end_ns) as done:
        shown = _Shown(controller, done)
        run = simulate_dynamic(first, load, points, trace, decider=shown, options=options)
    if as_json:
        print(json.dumps(report(run, load), indent=2))
    else:
        show(run, load)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A decider that shows how far the simulation is."""

    decider: Decider
    done: Callable[[float], None]

    def observe(self, now_ns: int, seen: Sequence[Seen]) -> Decision:
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
        "moves": [asdict(each) for each in run.moves],
        "refused": [{"at_ns": at, "why": why} for at, why in run.refused],
        "periods": [asdict(each) for each in run.periods],
    }


def show(run: DynamicRun, load: Workload) -> None:
    """The moves as a table, the tenants' attainment, and the sums."""
    console = Console()
    rows = [
        (
            *("-" if time is None else f"{time / SECOND:.1f}"
              for time in (each.decided_ns, each.routed_ns, each.closed_ns)),
            str(each.devices), str(each.gpus), f"{each.missed:,} of {each.ended:,}", each.why,
        )
        for each in run.moves
    ]  # fmt: skip
    heads = ("at s", "serves at s", "closed at s", "devices", "then", "missed", "why")
    console.print(FittedTable(heads, rows, words=("why",)))
    for at, why in run.refused:
        console.print(f"{at / SECOND:.1f} s: refused: {why}", highlight=False, soft_wrap=True)
    served = zip(load.tenants, run.tenants, strict=True)
    worst, (offered, met) = min(served, key=lambda each: each[1][1] / max(each[1][0], 1))
    console.print(
        f"{run.device_s / 3600:.3f} device-hours in {run.seconds:g} s, {len(run.moves)} moves; "
        f"{run.attainment:.2%} of {sum(each for each, _ in run.tenants):,} requests in time, "
        f"{worst.name} {met / max(offered, 1):.2%}; {run.short_s:g} s without capacity",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
