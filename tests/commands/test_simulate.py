"""`spacetime simulate` and its neighbours as commands; the search for the highest rate."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fixed_plan import PROFILES, SECOND, A, B, on, part, plan_of, workload

from spacetime.plan import plan_json
from spacetime.profiles.profile_file import write_profiles
from spacetime.simulation.fixed_plan import SimOptions
from spacetime.simulation.interval import interval
from spacetime.simulation.rate_search import highest_rate, highest_scale


def test_intervals_of_a_mean() -> None:
    assert interval([2.0]).half is None
    found = interval([1.0, 2.0, 3.0])  # s = 1, t(2) = 4.303
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 / math.sqrt(3))


@given(
    st.floats(2.0**-20, 2.0**20), st.sampled_from([0.1, 0.01, 0.001]),
    st.floats(2.0**-20, 2.0**20), st.sampled_from([2.0, 1.1]),
)  # fmt: skip
def test_the_highest_scale_of_a_step(
    edge: float, tolerance: float, start: float, step: float
) -> None:
    found = highest_scale(
        lambda scale: float(scale <= edge), 0.99, tolerance=tolerance, start=start, step=step
    )
    assert found.scale <= edge < found.scale * (1 + tolerance)
    assert all((p.scale <= found.scale) == (p.attainment >= 0.99) for p in found.probes)


def test_no_rate_keeps_an_objective_below_the_latency() -> None:
    plan = plan_of(part("p", 1, on("a")))
    found = highest_rate(plan, workload(replace(A, slo_ms=9)), PROFILES, SimOptions(
        duration_ns=SECOND, replications=1
    ))  # fmt: skip
    assert found.scale == 0


def test_the_highest_rate_of_constant_arrivals_is_the_capacity() -> None:
    plan = plan_of(part("p", 1, on("a")))
    options = SimOptions(duration_ns=300 * SECOND)
    asked = workload(replace(A, slo_ms=30), process="constant")
    found = highest_rate(plan, asked, PROFILES, options)
    assert found.scale * 50 == pytest.approx(100, rel=0.03)  # a request every 10 ms


def test_a_guess_leaves_few_whole_simulations_to_a_plan_with_much_room() -> None:
    plan = plan_of(part("p", 1, on("a")))
    asked = workload(replace(A, slo_ms=30, rate_rps=0.05), process="constant")
    found = highest_rate(plan, asked, PROFILES, SimOptions(duration_ns=1000 * SECOND))
    assert found.scale * 0.05 == pytest.approx(100, rel=0.03)
    assert len(found.probes) <= 6  # doubling from 1 takes 11, and bisecting 7


BLOCKED = """
import sys
for name in ("torch", "matplotlib", "scipy", "cupy", "triton"):
    sys.modules[name] = None
from spacetime.cli.root import main
main()
"""


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    environment = {"PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120,
                          env=environment)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    plan = plan_of(part("p", 2, on("a", 4)), part("q", 1, on("b", 2)))
    (tmp_path / "plan.json").write_text(plan_json.dumps(plan))
    (tmp_path / "work.json").write_text(json.dumps({"tenants": [
        {"name": t.name, "model": t.model, "slo_ms": t.slo_ms, "rate_rps": t.rate_rps}
        for t in (A, B)
    ]}))  # fmt: skip
    write_profiles(tmp_path / "profiles.csv", PROFILES)
    return tmp_path / "plan.json", tmp_path / "work.json", tmp_path / "profiles.csv"


def test_the_command_needs_neither_torch_nor_a_compiler(files: tuple[Path, Path, Path]) -> None:
    plan, work, profiles = files
    given_files = ("simulate", plan, "--workload", work, "--profiles", profiles)
    events = plan.with_name("events.json")
    done = run_command(*given_files, "--duration", 5, "--json", "--timeline", events)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["format"] == "spacetime.report/1"
    assert report["simulated"]["replications"] == 5
    assert report["tenants"]["a"]["confidence_95"]["attainment"]["half"] is not None
    assert report["stranded_units"] == 5 + 6
    assert json.loads(events.read_text())["traceEvents"]
    shown = run_command(*given_files, "--duration", 5, "--highest", 0.99, "--policy", "elsa")
    assert shown.returncode == 0, shown.stderr
    assert "Highest rate with every tenant at 99.00 %" in shown.stdout


def test_planning_and_comparing_need_them_neither(files: tuple[Path, Path, Path]) -> None:
    _, work, profiles = files
    made, out = work.with_name("made.json"), work.with_name("out")
    planned = run_command("plan", work, "--profiles", profiles, "--out", made)
    assert planned.returncode == 0, planned.stderr
    done = run_command("simulate", made, "--workload", work, "--profiles", profiles, "--json",
                       "--duration", 2)  # fmt: skip
    assert json.loads(done.stdout)["overall"]["attainment"] > 0.9
    arguments = ("--planner", "parvagpu", "--duration", 2, "--out", out)
    compared = run_command("compare", work, "--profiles", profiles, *arguments)
    assert compared.returncode == 0, compared.stderr
    assert "no picture: matplotlib is not installed" in compared.stderr
    assert json.loads((out / "compare.json").read_text())["rows"][0]["keeps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan.json": "{"}, "plan.json: is not JSON"),
        ({"work.json": "tenants: 3"}, "work.json"),
        ({"profiles.csv": "model\n"}, "profiles.csv:1: header"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(
    files: tuple[Path, Path, Path], change: dict[str, str], message: str
) -> None:
    for name, text in change.items():
        (files[0].parent / name).write_text(text)
    done = run_command("simulate", files[0], "--workload", files[1], "--profiles", files[2])
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
