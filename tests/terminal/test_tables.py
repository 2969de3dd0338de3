"""Tables at any width: every value of every command's table is there, whole, and nothing is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from rich.cells import cell_len
from rich.console import Console, RenderableType

from spacetime.benchmarks import record
from spacetime.commands import compare as scoreboard
from spacetime.commands import demo, doctor, mig, simulate, verify
from spacetime.commands import plan as planning
from spacetime.devices.facts import device
from spacetime.isolation.mig_fake import FakeNvml
from spacetime.plan import PlanOptions
from spacetime.planners.advise import advise
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.simulation.comparison import compare
from spacetime.simulation.fixed_plan import SimOptions, simulate_plan
from spacetime.simulation.plan_report import plan_report
from spacetime.terminal.report_tables import tenants_table
from spacetime.terminal.tables import FittedTable
from spacetime.workload.workload import Tenant, Workload

ROOT = Path(__file__).parents[2]
NAMES = (
    "densenet121", "densenet169", "densenet201", "org/very-long-name-of-a-model-in-two-sizes-small",
    "org/very-long-name-of-a-model-in-two-sizes-large",
)  # fmt: skip


def at(width: int, *parts: RenderableType) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as said:
        for part in parts:
            console.print(part)
    return said.get()


def squeezed(text: str) -> str:
    """Without spaces and ends of lines: a name that folds is still there."""
    return re.sub(r"\s", "", text)


def holds(table: FittedTable, width: int) -> None:
    said = at(width, table)
    assert "…" not in said
    assert max(map(cell_len, said.splitlines())) <= width
    for row in table.rows:
        for head, cell in zip(table.heads, row, strict=True):
            if head in table.words:
                assert set(squeezed(cell)) <= set(squeezed(said))
            else:
                assert cell in said, head


@settings(deadline=None)
@given(
    some.integers(40, 220),
    some.lists(some.tuples(some.sampled_from(NAMES), some.integers(0, 10**9)), max_size=5),
    some.integers(1, 14),
)
def test_nothing_is_cut(width: int, rows: list[tuple[str, int]], columns: int) -> None:
    cells = [[str(n), name, *[f"{value:,}"] * columns] for n, (name, value) in enumerate(rows)]
    heads = ("row", "name", *(f"value {n}" for n in range(columns)))
    holds(FittedTable(heads, cells, words=("name",)), width)


def test_names_that_begin_alike_are_told_apart() -> None:
    rows = [(name, "1.0") for name in NAMES]
    said = at(30, FittedTable(("model", "ms"), rows, words=("model",)))
    for name in NAMES:
        assert squeezed(name) in squeezed(said.replace("1.0", ""))


def test_a_wide_console_stretches_nothing() -> None:
    rows = [("a", "1"), ("b", "2")]
    said = at(200, FittedTable(("name", "value"), rows, words=("name",), title="of two"))
    assert max(len(line.rstrip()) for line in said.splitlines()) < 20


def load() -> tuple[Workload, Profiles]:
    """Tenants whose names and figures are long, with MIG profiles."""
    tenants = [
        Tenant(name=name, model=name, slo_ms=205.5, rate_rps=1234.5 + n)
        for n, name in enumerate(NAMES)
    ]
    points = [
        Point(name, "a100-80gb", "mig", units, batch, 1, 2.0 + batch / units,
              batch / (2.0 + batch / units) * 1e3, "measured")
        for name in NAMES for units in (1, 2, 3, 4, 7) for batch in (1, 8, 16)
    ]  # fmt: skip
    return Workload(tenants=tuple(tenants)), Profiles(tuple(points))


def planned() -> FittedTable:
    workload, points = load()
    facts = device("a100-80gb")
    plan = planner("parvagpu").plan(workload, points, facts, PlanOptions())
    return planning._table(plan, workload, points)


def simulated() -> Sequence[FittedTable]:
    workload, points = load()
    plan = planner("parvagpu").plan(workload, points, device("a100-80gb"), PlanOptions())
    report = plan_report(
        simulate_plan(plan, workload, points, SimOptions(duration_ns=10**9, replications=1))
    )
    return tenants_table(report), simulate._partitions(report)


@pytest.mark.parametrize("width", [80, 200])
def test_plans_and_simulations(width: int) -> None:
    for table in (planned(), *simulated()):
        holds(table, width)
    assert "densenet169" in squeezed(at(width, planned()))


def shown(monkeypatch: pytest.MonkeyPatch, width: int, print_it: Callable[[], object]) -> str:
    """What a command prints on a terminal of this width."""
    monkeypatch.setenv("COLUMNS", str(width))
    console = Console(width=width)
    with console.capture() as said:
        for module in (planning, doctor, mig, verify):
            monkeypatch.setattr(module, "Console", lambda **_: console)
        print_it()
    return said.get()


@pytest.mark.parametrize("width", [80, 160, 200])
def test_commands_that_print_by_themselves(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    workload, points = load()
    facts = device("a100-80gb")
    plan = planner("parvagpu").plan(workload, points, facts, PlanOptions())
    certificate = json.loads(certified())
    advice, _ = advise(workload, points, facts, PlanOptions(), planner("parvagpu"))
    for print_it in (
        lambda: planning.print_plan(plan, workload, points, facts),
        lambda: planning.print_advice(advice),
        lambda: doctor.print_facts(told()),
        lambda: mig.print_instances(FakeNvml("h200-141gb", 2), as_json=False),
        lambda: verify.print_certificate(certificate),
    ):
        said = shown(monkeypatch, width, print_it)
        assert "…" not in said
        # Sentences are left to the terminal; the tables stand within it.
        assert all(cell_len(li) <= width for li in said.splitlines() if "  " in li.strip()[:60])


def told() -> dict[str, object]:
    reason = "libcuda.so.1: cannot open shared object file: No such file or directory"
    rows = [
        {"name": "Triton's interpreter", "on": False, "detail": reason, "serves": "tests of them"},
        {"name": "cores", "on": True, "detail": "2 cores", "serves": "partitions of a CPU"},
    ]
    return {"device": "cpu", "mechanisms": rows}


def certified() -> str:
    """A certificate with a pair that breaks several bounds: its verdict is long."""
    side = {"rate": 123.456, "p50_us": 500.0, "p99_us": 510.0}
    row = {
        "on": 0, "by": 1, "probe": "compute", "stressor": "memory", "alone": side, "beside": side,
        "held_frac": 0.5, "p50_inflation": 1.234, "p99_inflation": 12.345, "busy_frac": 0.9,
        "looked": 50, "leaked": 1, "private": True,
        "broken": ["held 0.50 < 0.9", "p99 x12.35 > x1.5", "leaked in 1 of 50 looks"],
    }  # fmt: skip
    bounds = {"private_held": 0.9, "private_p99": 1.5, "shared_held": 0.3, "shared_p99": 5}
    part = {"asked": [0], "granted": 1, "home": [0], "fits": True}
    return json.dumps({
        "device": "cpu", "kind": "cores", "unit": "core", "partitions": [part, part],
        "rows": [row, row | {"on": 1, "by": 0, "broken": []}], "bounds": bounds, "overlaps": [],
        "shared": "memory bandwidth", "passed": False,
    })  # fmt: skip


@pytest.mark.parametrize("width", [80, 200])
def test_a_comparison(width: int) -> None:
    workload, points = load()
    options = SimOptions(duration_ns=10**9, replications=1)
    names = ("parvagpu", "mig-only", "gpulet")
    verdicts = [
        *compare({"a-scenario-with-a-long-name/of-its-own": workload}, names, profiles=points,
                 device=device("a100-80gb"), sim_options=options)
    ]  # fmt: skip
    console = Console(width=width)
    with console.capture() as said:
        scoreboard.print_comparison(verdicts, console)
    text = said.get()
    assert "…" not in text
    for each in verdicts:
        assert each.planner in text
        if each.attainment is not None:
            assert f"{each.attainment:.2%}" in text


@pytest.mark.parametrize("width", [80, 200])
def test_a_table_of_a_benchmark(width: int) -> None:
    heads = ("model", "R", *(f"way {n}" for n in range(9)), "hardest")
    rows = [("mobilenet", n, *(1234.5678 * k for k in range(9)), "threads") for n in (2, 8)]
    holds(record.table("closed loop, answers per second", heads, rows), width)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_demos_tables(width: int) -> None:
    row = {
        "policy": "space-time", "offered_rps": 1234567.0, "throughput_rps": 234567.0,
        "goodput_rps": 123456.0, "attainment": 0.98765, "p50_ms": 12.345, "p99_ms": 1234.5,
        "tenants_per_launch": 12.3, "speed_up": None,
    }  # fmt: skip
    holds(demo._policy_table([row, row | {"policy": "time-only"}]), width)
    tenants: list[dict[str, Any]] = [
        {"name": name, "accuracy_alone": 0.98765, "accuracy_shared": None, "pictures": 1297}
        for name in NAMES
    ]
    holds(demo._accuracy_table(tenants), width)
