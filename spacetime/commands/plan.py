"""`spacetime plan` and `spacetime profile`: files in, a checked plan or a profile out."""

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
from spacetime.planners.registry import planner as make
from spacetime.planners.spacetime import solves
from spacetime.profiles import interference_file, profile_file
from spacetime.profiles.interference import Crowd, Fitted
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_import import IMPORTERS
from spacetime.terminal.progress import working
from spacetime.terminal.tables import FittedTable
from spacetime.workload import workload_file
from spacetime.workload.workload import Workload

OWN = "spacetime"  # the planner that simulates what it proposes
TARGET = 0.99
WEAKER = (
    "Without scipy planner spacetime is weaker: it does not search exactly, and may take a device "
    "more; pip install 'spacetime[plan]'"
)
ARRIVALS = {"poisson": "Poisson", "gamma": "gamma", "constant": "constant", "trace": "recorded"}


def from_options(
    *,
    workload: Path,
    profiles: Path,
    device: str | None,
    planner: str,
    gpus: int | None,
    max_procs: int,
    max_utilisation: float,
    choices: Sequence[str],
    calm: bool,
    guard: bool,
    interference: Path | None,
    steady: bool,
    attainment: float | None,
    form: str | None,
    explain: bool,
    advise: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make a plan, check it, and print it as a table, as JSON or as what another tool takes.

    With `advise` the right-sizing report instead. Raises InfeasibleError naming tenant and bound,
    and what the readers of the files raise.
    """
    options = PlanOptions(gpus=gpus, max_procs=max_procs, max_utilisation=max_utilisation)
    load, points = workload_file.read(workload), profile_file.read(profiles)
    facts = device_file.named(device or points.device)
    if facts.name != points.device:
        raise ProfileError("device", f"{profiles} is of {points.device}, not of {facts.name}")
    if planner == OWN and not solves():
        print(WEAKER, file=sys.stderr)
    maker, cost = _counting(_maker(planner, parse(choices), guard=guard), interference)
    if advise:
        if calm or attainment is not None or form is not None or explain or out is not None:
            raise UnsupportedError("--advise: goes with --planner, --gpus, the limits and --json")
        if planner == OWN and not steady and (keep := _simulator()) is not None:
            maker = keep.Kept(maker)
        _advise(load, points, facts, options, maker, as_json=as_json)
        return
    if steady and attainment is not None:
        raise UnsupportedError("--steady: does not go with --attainment, which simulates")
    ask = _Asked(load, points, facts, options, own=planner == OWN)
    with working("planning"):
        found, said = ask.plan(maker, steady=steady, calm=calm, attainment=attainment)
    made = require(found, load, points, facts, options, interference=cost)
    if (explain or planner == OWN) and (planner != OWN or not steady):  # it says so already
        made = explained(made, load, points, facts, options)
    if out is not None:
        out.write_text(plan_json.dumps(made), encoding="utf-8")
    if form is not None or as_json:
        print(EXPORTS[form](made, facts) if form else plan_json.dumps(made), end="")
    else:
        show(made, load, points, facts)
    ask.say(said, aside=as_json or form is not None)
    if explain:
        Console(stderr=as_json or form is not None).print(
            made.explain(), highlight=False, markup=False, soft_wrap=True
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is planned for. `own`: by our planner, whose plans are to keep what they promise."""

    load: Workload
    points: Profiles
    facts: DeviceFacts
    options: PlanOptions
    own: bool

    def plan(
        self, maker: Planner, *, steady: bool, calm: bool, attainment: float | None
    ) -> tuple[Plan, str]:
        """The plan, and how sure it is at the workload's own arrivals."""
        ask = (self.load, self.points, self.facts, self.options)
        simulator = None if steady else _simulator()
        if attainment is not None:
            proven = import_module("spacetime.simulation.proven").proven(
                maker, *ask, target=attainment
            )
            return proven.plan, self.kept(proven.worst)
        if simulator is not None and self.own and not calm:
            found = simulator.best_of(maker, *ask)
            return found.plan, self.kept(found.worst)
        made = maker.plan(*ask)
        if calm:
            made = calmed(made, self.load, self.points, self.options)
        if steady:
            return made, "At steady arrivals, as papers assume: not simulated."
        if simulator is None:
            return made, "Not simulated: this installation is without its compiled part."
        attained = simulator.simulated(self.load, self.points, TARGET)(made)
        return made, self.kept(min(((part, name) for name, part in attained.items()), default=None))

    def kept(self, worst: tuple[float, str] | None) -> str:
        """What was simulated, in a line; a warning begins with the tenant's name."""
        how = f"Simulated at {ARRIVALS[self.load.arrivals.process]} arrivals"
        if worst is None:
            return f"{how}: nobody asks."
        part, name = worst
        if part >= TARGET:
            return f"{how}: every tenant has at least {_percent(part)} of its requests in time."
        (tenant,) = (each for each in self.load.tenants if each.name == name)
        fastest = min(point.latency_ms for point in self.points.of(tenant.model))
        why = (
            f"its quickest launch takes {fastest:.4g} of {tenant.slo_ms:g} ms, and no plan that "
            "was tried does better" if self.own
            else "this is the plan as its paper has it; planner spacetime keeps more"
        )  # fmt: skip
        return (
            f"WARNING: {how[0].lower()}{how[1:]}, tenant {name} has {_percent(part)} of its "
            f"requests in time, less than {TARGET:.0%}: {why}."
        )

    def say(self, said: str, *, aside: bool) -> None:
        """Beside a table always; beside what a program reads only what warns, on stderr."""
        if not aside:
            Console().print(said, highlight=False, markup=False, soft_wrap=True)
        elif said.startswith("WARNING"):
            print(said, file=sys.stderr)


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


def _advise(
    load: Workload, points: Profiles, facts: DeviceFacts, options: PlanOptions, maker: Planner, *,
    as_json: bool,
) -> None:  # fmt: skip
    with working("planning"):
        found, _ = right_sized(load, points, facts, options, maker)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    rows = [
        (
            need.tenant, f"{need.rate_rps:.4g}", f"{need.slo_ms:g}",
            f"{need.copies} × {need.kind} {need.units}", str(need.batch), str(need.procs),
            "-" if need.devices is None else str(need.devices),
            "-" if need.device_busy is None else f"{need.device_busy:.0%}",
        )
        for need in found.needs
    ]  # fmt: skip
    heads = ("tenant", "req/s", "SLO ms", "alone on", "batch", "procs", "devices", "used")
    table = FittedTable(heads, rows, words=("tenant",))
    console = Console()
    console.print(table)
    for line in advice_lines(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def advice_lines(found: Advice) -> list[str]:
    """What the report comes to, in words."""
    if found.saved is None:
        without = "some tenant fits no whole device alone, so sharing is the only way"
    else:
        saves = f"sharing saves {found.saved:.0%}" if found.pays else "sharing does not pay here"
        without = f"{found.alone_gpus} if each tenant has its own: {saves}"
    many = "device" if found.shared_gpus == 1 else "devices"
    limits = ", ".join(f"{name} ({count})" for name, count in found.limits.items())
    return [
        "Alone on: the smallest partitions that serve a tenant; devices, used: whole ones for it.",
        f"{found.device}: {found.shared_gpus} {many} shared (at least "
        f"{found.lower_bound_gpus or 1}), {without}.",
        f"Of the shared devices {found.idle:.2f} are idle in partitions, {found.stranded:.2f} in "
        f"none; {grows(found.headroom)}.",
        (f"What limits: {limits}. " if limits else "") + f"{found.next_cheaper}.",
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
    maker = make(name, **choices)
    if not guard:
        return maker
    guarded: Planner = import_module("spacetime.simulation.guarded").Guarded(paris=maker)
    return guarded


def _counting(maker: Planner, measured: Path | None) -> tuple[Planner, Crowd | None]:
    """The planner with its `interference`, where it counts that; the checker does in any case."""
    if measured is None:
        return maker, None
    cost, fits = interference_file.read(measured)
    show_fits(fits)
    counting: Any = maker
    if is_dataclass(maker) and "interference" in {each.name for each in fields(maker)}:
        counting = replace(counting, interference=cost)
    return counting, cost


def show_fits(fits: Sequence[Fitted]) -> None:
    """The models of interference on the error stream, by error on pairs that were held out."""
    for number, each in enumerate(fits):
        print(
            f"interference {each.name}{' (used)' * (number == 0)}: off by {each.mean:.1%} on "
            f"average, {each.p90:.1%} p90, {each.p95:.1%} p95 on {each.held_out} pairs held out",
            file=sys.stderr,
        )


def parse(choices: Sequence[str]) -> dict[str, Any]:
    """`name=value` as a mapping; a value that is JSON is that, any other a text.

    Raises UnsupportedError for one without a name.
    """
    found: dict[str, Any] = {}
    for choice in choices:
        name, equals, text = choice.partition("=")
        if not name or not equals:
            raise UnsupportedError(f"--set: must be NAME=VALUE, got {choice!r:.40}")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def show(plan: Plan, load: Workload, points: Profiles, facts: DeviceFacts) -> None:
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
    for gpu, part, each in plan:
        at = "" if part.start is None else f" @{part.start}"
        rows.append((
            str(gpu.id), f"{part.kind} {part.units}{at}", each.tenant, str(each.batch),
            f"{each.rate_rps:.4g}", f"{each.latency_ms:.4g}", f"{tenants[each.tenant].slo_ms:g}",
            str(part.procs), f"{busy(part, loads(part, points, models)):.0%}",
        ))  # fmt: skip
    heads = ("gpu", "partition", "tenant", "batch", "req/s", "ms", "SLO ms", "procs", "used")
    return FittedTable(heads, rows, words=("partition", "tenant"))


def import_profiles(*, path: Path, form: str, out: Path, as_json: bool) -> None:
    """Read another project's profiles and write them as ours. Raises ProfileError."""
    points = IMPORTERS[form](path)
    profile_file.write(out, points)
    if as_json:
        print(json.dumps({
            "device": points.device, "points": len(points), "models": list(points.models),
            "kinds": list(points.kinds), "file": str(out),
        }, indent=2))  # fmt: skip
    else:
        Console().print(
            f"{len(points):,} points of {len(points.models)} models on {points.device} in {out}",
            highlight=False,
        )
