"""`spacetime plan`: reads a workload and profiles, makes a plan, checks it and prints it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.devices import device_file
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import ProfileError, UnsupportedError
from spacetime.plan import Plan, Planner, PlanOptions, plan_json, require
from spacetime.plan import calm as calmed
from spacetime.plan.export import EXPORTS
from spacetime.plan.timing import busy, loads
from spacetime.planners.advise import Advice
from spacetime.planners.advise import advise as right_sized
from spacetime.planners.packing.bounds import explained
from spacetime.planners.registry import planner as planner_named
from spacetime.planners.spacetime import solves
from spacetime.profiles.interference import Crowd, Fitted
from spacetime.profiles.interference_file import read_interference
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.workload.workload import Workload
from spacetime.workload.workload_file import read_workload

OWN = "spacetime"  # the planner that simulates what it proposes
TARGET = 0.99
WEAKER = (
    "Without scipy planner spacetime is weaker: it does not search exactly, and may take a device "
    "more; pip install 'spacetime[plan]'"
)
ARRIVALS = {"poisson": "Poisson", "gamma": "gamma", "constant": "constant", "trace": "recorded"}


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """The options of `spacetime plan`.

    `choices` are the texts of --set, and `form` is what --export names.
    """

    workload: Path
    profiles: Path
    device: str | None
    planner: str
    gpus: int | None
    max_procs: int
    max_utilisation: float
    choices: Sequence[str]
    calm: bool
    guard: bool
    interference: Path | None
    steady: bool
    attainment: float | None
    form: str | None
    explain: bool
    advise: bool
    out: Path | None
    as_json: bool

    @property
    def own(self) -> bool:
        """Whether it is our planner that is asked, whose plans are to keep what they promise."""
        return self.planner == OWN

    @property
    def piped(self) -> bool:
        """Whether a program reads what is printed, so that remarks go to the error stream."""
        return self.as_json or self.form is not None


def run(asked: PlanCommand) -> None:
    """Make a plan, check it, and print it as a table, as JSON or as what another tool takes.

    With `advise` the right-sizing report instead. Raises InfeasibleError naming tenant and bound,
    and what the readers of the files raise.
    """
    problem = _read(asked)
    if asked.own and not solves():
        print(WEAKER, file=sys.stderr)
    maker = _maker(asked.planner, parse(asked.choices), guard=asked.guard)
    maker, neighbours = _counting(maker, asked.interference)
    if asked.advise:
        _advise(asked, problem, maker)
        return
    if asked.steady and asked.attainment is not None:
        raise UnsupportedError("--steady: does not go with --attainment, which simulates")
    with working("planning"):
        plan, said = _planned(asked, problem, maker)
    plan = require(plan, *problem.arguments, interference=neighbours)
    if (asked.explain or asked.own) and not (asked.own and asked.steady):  # it says so already
        plan = explained(plan, *problem.arguments)
    if asked.out is not None:
        asked.out.write_text(plan_json.dumps(plan), encoding="utf-8")
    _tell(asked, problem, plan, said)


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is planned for."""

    load: Workload
    points: Profiles
    facts: DeviceFacts
    options: PlanOptions

    @property
    def arguments(self) -> tuple[Workload, Profiles, DeviceFacts, PlanOptions]:
        """In the order in which every planner takes them."""
        return self.load, self.points, self.facts, self.options


def _read(asked: PlanCommand) -> _Problem:
    """The files of the command. Raises ProfileError where they are of two devices."""
    load, points = read_workload(asked.workload), read_profiles(asked.profiles)
    facts = device_file.device_named(asked.device or points.device)
    if facts.name != points.device:
        raise ProfileError("device", f"{asked.profiles} is of {points.device}, not of {facts.name}")
    options = PlanOptions(
        gpus=asked.gpus, max_procs=asked.max_procs, max_utilisation=asked.max_utilisation
    )
    return _Problem(load, points, facts, options)


def _planned(asked: PlanCommand, problem: _Problem, maker: Planner) -> tuple[Plan, str]:
    """The plan, and how sure it is at the workload's own arrivals."""
    simulator = None if asked.steady else _simulator()
    if asked.attainment is not None:
        module = import_module("spacetime.simulation.proven")
        proven = module.proven(maker, *problem.arguments, target=asked.attainment)
        return proven.plan, _kept(problem, proven.worst, own=asked.own)
    if simulator is not None and asked.own and not asked.calm:
        best = simulator.best_of(maker, *problem.arguments)
        return best.plan, _kept(problem, best.worst, own=asked.own)
    plan = maker.plan(*problem.arguments)
    if asked.calm:
        plan = calmed(plan, problem.load, problem.points, problem.options)
    if asked.steady:
        return plan, "At steady arrivals, as papers assume: not simulated."
    if simulator is None:
        return plan, "Not simulated: this installation is without its compiled part."
    attained = simulator.simulated(problem.load, problem.points, TARGET)(plan)
    worst = min(((part, name) for name, part in attained.items()), default=None)
    return plan, _kept(problem, worst, own=asked.own)


def _kept(problem: _Problem, worst: tuple[float, str] | None, *, own: bool) -> str:
    """What was simulated, in a line; a warning begins with the tenant's name."""
    how = f"Simulated at {ARRIVALS[problem.load.arrivals.process]} arrivals"
    if worst is None:
        return f"{how}: nobody asks."
    part, name = worst
    if part >= TARGET:
        return f"{how}: every tenant has at least {_percent(part)} of its requests in time."
    (tenant,) = (tenant for tenant in problem.load.tenants if tenant.name == name)
    fastest = min(point.latency_ms for point in problem.points.of(tenant.model))
    why = "this is the plan as its paper has it; planner spacetime keeps more"
    if own:
        why = (
            f"its quickest launch takes {fastest:.4g} of {tenant.slo_ms:g} ms, and no plan that "
            "was tried does better"
        )
    return (
        f"WARNING: {how[0].lower()}{how[1:]}, tenant {name} has {_percent(part)} of its "
        f"requests in time, less than {TARGET:.0%}: {why}."
    )


def _tell(asked: PlanCommand, problem: _Problem, plan: Plan, said: str) -> None:
    """Prints the plan in the form that was asked for, and `said`: how sure the plan is.

    Beside what a program reads, `said` is printed only where it warns, on the error stream.
    """
    if asked.form is not None:
        print(EXPORTS[asked.form](plan, problem.facts), end="")
    elif asked.as_json:
        print(plan_json.dumps(plan), end="")
    else:
        print_plan(plan, problem.load, problem.points, problem.facts)
    if not asked.piped:
        Console().print(said, highlight=False, markup=False, soft_wrap=True)
    elif said.startswith("WARNING"):
        print(said, file=sys.stderr)
    if asked.explain:
        Console(stderr=asked.piped).print(
            plan.explain(), highlight=False, markup=False, soft_wrap=True
        )


def _percent(part: float) -> str:
    """Rounded down: 99.996 % is not all."""
    return f"{math.floor(part * 10_000) / 100:.2f} %"


def _simulator() -> Any:
    """The module that simulates plans, or None where the compiled part is absent."""
    try:
        return import_module("spacetime.simulation.proven")
    except ImportError as error:
        if "_native" not in str(error):
            raise
        return None


def _advise(asked: PlanCommand, problem: _Problem, maker: Planner) -> None:
    """Prints what each tenant needs alone, and whether sharing devices pays."""
    plans = asked.calm or asked.attainment is not None or asked.form is not None
    if plans or asked.explain or asked.out is not None:
        raise UnsupportedError("--advise: goes with --planner, --gpus, the limits and --json")
    if asked.own and not asked.steady and (simulator := _simulator()) is not None:
        maker = simulator.Kept(maker)
    with working("planning"):
        advice, _ = right_sized(*problem.arguments, maker)
    if asked.as_json:
        print(json.dumps(advice.to_json(), indent=2))
    else:
        print_advice(advice)


def print_advice(advice: Advice) -> None:
    """A row for each tenant, and what the whole comes to."""
    rows = [
        (
            need.tenant,
            f"{need.rate_rps:.4g}",
            f"{need.slo_ms:g}",
            f"{need.copies} × {need.kind} {need.units}",
            str(need.batch),
            str(need.procs),
            "-" if need.devices is None else str(need.devices),
            "-" if need.device_busy is None else f"{need.device_busy:.0%}",
        )
        for need in advice.needs
    ]
    heads = ("tenant", "req/s", "SLO ms", "alone on", "batch", "procs", "devices", "used")
    console = Console()
    console.print(FittedTable(heads, rows, words=("tenant",)))
    for line in advice_lines(advice):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def advice_lines(advice: Advice) -> list[str]:
    """What the report comes to, in words."""
    if advice.saved is None:
        without = "some tenant fits no whole device alone, so sharing is the only way"
    else:
        saves = f"sharing saves {advice.saved:.0%}" if advice.pays else "sharing does not pay here"
        without = f"{advice.alone_gpus} if each tenant has its own: {saves}"
    many = "device" if advice.shared_gpus == 1 else "devices"
    limits = ", ".join(f"{name} ({count})" for name, count in advice.limits.items())
    return [
        "Alone on: the smallest partitions that serve a tenant; devices, used: whole ones for it.",
        f"{advice.device}: {advice.shared_gpus} {many} shared (at least "
        f"{advice.lower_bound_gpus or 1}), {without}.",
        f"Of the shared devices {advice.idle:.2f} are idle in partitions, {advice.stranded:.2f} in "
        f"none; {grows(advice.headroom)}.",
        (f"What limits: {limits}. " if limits else "") + f"{advice.next_cheaper}.",
    ]


def grows(headroom: float | None) -> str:
    """By how much rates can grow; beyond tenfold the figure says nothing more."""
    if headroom is None:
        return "nobody asks"
    if headroom > 9:
        return "every rate can grow more than tenfold"
    return f"every rate can grow by {headroom:.1%}"


def _maker(name: str, choices: dict[str, Any], *, guard: bool) -> Planner:
    """The planner of a name; with `guard`, also among its choices, the one that simulates."""
    if name == "paris":
        guard = bool(choices.pop("guard", False)) or guard
    elif guard:
        raise UnsupportedError("--guard: belongs to planner paris")
    maker = planner_named(name, **choices)
    if not guard:
        return maker
    guarded: Planner = import_module("spacetime.simulation.guarded").Guarded(paris=maker)
    return guarded


def _counting(maker: Planner, measured: Path | None) -> tuple[Planner, Crowd | None]:
    """The planner with its `interference`, where it counts that; the checker does in any case."""
    if measured is None:
        return maker, None
    cost, fits = read_interference(measured)
    print_fits(fits)
    counting: Any = maker
    if is_dataclass(maker) and "interference" in {field.name for field in fields(maker)}:
        counting = replace(counting, interference=cost)
    return counting, cost


def print_fits(fits: Sequence[Fitted]) -> None:
    """The models of interference on the error stream, by error on pairs that were held out."""
    for number, fit in enumerate(fits):
        print(
            f"interference {fit.name}{' (used)' * (number == 0)}: off by {fit.mean:.1%} on "
            f"average, {fit.p90:.1%} p90, {fit.p95:.1%} p95 on {fit.held_out} pairs held out",
            file=sys.stderr,
        )


def parse(choices: Sequence[str]) -> dict[str, Any]:
    """`name=value` as a mapping; a value that is JSON is that, any other a text.

    Raises UnsupportedError for one without a name.
    """
    values: dict[str, Any] = {}
    for choice in choices:
        name, equals, text = choice.partition("=")
        if not name or not equals:
            raise UnsupportedError(f"--set: must be NAME=VALUE, got {choice!r:.40}")
        values[name] = _value(text)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def print_plan(plan: Plan, load: Workload, points: Profiles, facts: DeviceFacts) -> None:
    """A table by device and partition, and what the whole comes to."""
    console = Console()
    console.print(_table(plan, load, points))
    kinds = {part.kind for gpu in plan.gpus for part in gpu.partitions}
    used = sum(
        part.units / facts.whole(part.kind)
        for gpu in plan.gpus for part in gpu.partitions if part.parent is None
    )  # fmt: skip
    console.print(
        "Each answer comes within ms at steady arrivals; a partition is its units @ its start; "
        "used is the part of what it could serve in such batches.\n"
        f"{plan.planner}: {len(plan.gpus)} × {plan.device} ({' and '.join(sorted(kinds))}), "
        f"at least {plan.lower_bound_gpus or 1} needed; {used / len(plan.gpus):.1%} of their units "
        f"in partitions; {grows(plan.headroom)}",
        highlight=False,
        soft_wrap=True,
    )


def _table(plan: Plan, load: Workload, points: Profiles) -> FittedTable:
    tenants = {tenant.name: tenant for tenant in load.tenants}
    models = {name: tenant.model for name, tenant in tenants.items()}
    rows = []
    for gpu, part, assigned in plan:
        at = "" if part.start is None else f" @{part.start}"
        rows.append(
            (
                str(gpu.id),
                f"{part.kind} {part.units}{at}",
                assigned.tenant,
                str(assigned.batch),
                f"{assigned.rate_rps:.4g}",
                f"{assigned.latency_ms:.4g}",
                f"{tenants[assigned.tenant].slo_ms:g}",
                str(part.procs),
                f"{busy(part, loads(part, points, models)):.0%}",
            )
        )
    heads = ("gpu", "partition", "tenant", "batch", "req/s", "ms", "SLO ms", "procs", "used")
    return FittedTable(heads, rows, words=("partition", "tenant"))
