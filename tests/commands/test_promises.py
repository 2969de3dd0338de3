"""What `spacetime plan` promises beside a plan: simulated, the same every time, in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from published import A100

from spacetime.commands.plan import grows
from spacetime.plan import plan_json
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import read_profiles, write_profiles
from spacetime.simulation.fixed_plan import simulate_plan
from spacetime.workload.workload_file import read_workload

PROFILES = str(A100 / "profiles.csv")
S1 = str(A100 / "s1.yaml")


def spacetime(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spacetime", *words],
        capture_output=True, text=True, check=False, env=os.environ | env,
    )  # fmt: skip


def write(folder: Path, tenants: str, *, slow: bool = False) -> list[str]:
    """A workload and profiles of one model; `slow`: nothing but batches of eight."""
    points = [
        Point("m", "a100-80gb", "mig", units, batch, 1, ms, batch / ms * 1000)
        for units in (1, 2, 3, 4, 7)
        for batch in ((8,) if slow else (1, 2, 4, 8))
        for ms in [4 + 6 * batch / units]
    ]
    write_profiles(folder / "p.csv", Profiles(tuple(points)))
    (folder / "w.yaml").write_text(f"tenants: [{tenants}]\n")
    return [str(folder / "w.yaml"), "--profiles", str(folder / "p.csv")]


def test_the_plan_that_is_written_keeps_what_the_line_says(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = spacetime("plan", S1, "--profiles", PROFILES, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Simulated at Poisson arrivals: every tenant has at least" in done.stdout
    plan = plan_json.loads(out.read_text())
    run = simulate_plan(plan, read_workload(Path(S1)), read_profiles(Path(PROFILES)))
    assert run.worst is not None
    assert run.worst[0] >= 0.99
    assert f"{run.worst[0]:.2%} in time when simulated" in plan.explain()


def test_what_no_plan_keeps_is_said_and_planned_all_the_same(tmp_path: Path) -> None:
    hasty = "{name: hasty, model: m, slo_ms: 25, rate_rps: 655}"  # nearly all one device can do
    work = [*write(tmp_path, hasty, slow=True), "--gpus", "1"]
    done = spacetime("plan", *work)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("WARNING"))
    assert "tenant hasty has " in line
    assert "less than 99%" in line
    aside = spacetime("plan", *work, "--json")
    assert "WARNING: simulated at Poisson arrivals" in aside.stderr
    assert json.loads(aside.stdout)["planner"] == "spacetime"
    steady = spacetime("plan", *work, "--steady")
    assert "At steady arrivals, as papers assume: not simulated." in steady.stdout
    paper = spacetime("plan", *work, "--planner", "mig-only")
    assert "as its paper has it" in paper.stdout or "every tenant has at least" in paper.stdout
    assert spacetime("plan", *work, "--steady", "--attainment", "0.9").returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["plan", S1, "--profiles", PROFILES, "--json"], marks=pytest.mark.slow),
        ["plan", S1, "--profiles", PROFILES, "--advise", "--json"],
        ["compare", S1, "--profiles", PROFILES, "--planner", "exact", "--duration", "1", "--json"],
    ],
    ids=lambda words: " ".join(words[::3]) if isinstance(words, list) else words,
)
def test_same_input_same_bytes_whatever_the_hash_seed_and_the_load(words: list[str]) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        first = spacetime(*words, PYTHONHASHSEED="1")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    second = spacetime(*words, PYTHONHASHSEED="4242")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    json.loads(first.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize("way", ["absent", "broken"])
def test_without_scipy_it_plans_and_says_so(way: str, tmp_path: Path) -> None:
    work = write(tmp_path, "{name: a, model: m, slo_ms: 90, rate_rps: 150}")
    kind = "ModuleNotFoundError" if way == "absent" else "ImportError"
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").write_text(f"raise {kind}('no scipy here', name='scipy')")
    done = spacetime("plan", *work, PYTHONPATH=f"{tmp_path}{os.pathsep}{A100.parent.parent}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Without scipy planner spacetime is weaker")
    assert "pip install 'spacetime[plan]'" in done.stderr
    exact = spacetime(
        "plan", *work, "--planner", "exact",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{A100.parent.parent}",
    )  # fmt: skip
    assert exact.returncode == 2
    assert "planner exact needs scipy: pip install 'spacetime[plan]'" in exact.stderr


def test_two_tiny_models_share_one_small_partition(tmp_path: Path) -> None:
    tenants = ", ".join(f"{{name: {n}, model: m, slo_ms: 200, rate_rps: 1}}" for n in "ab")
    work = write(tmp_path, tenants)
    made = plan_json.loads(spacetime("plan", *work, "--json").stdout)
    ((part,),) = (gpu.partitions for gpu in made.gpus)
    assert (part.kind, part.units, len(part.tenants)) == ("mig", 1, 2)
    said = spacetime("plan", *work, "--advise").stdout
    assert "All of it fits one partition, mig 1: share that" in said
    assert "every rate can grow more than tenfold" in said


def test_how_much_rates_can_grow_is_a_figure_only_where_it_says_something() -> None:
    assert grows(0.254) == "every rate can grow by 25.4%"
    assert grows(1069.66) == "every rate can grow more than tenfold"
    assert grows(None) == "nobody asks"
