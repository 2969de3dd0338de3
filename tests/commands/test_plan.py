"""`spacetime plan` and `spacetime profile`: exit status, files, and what they must not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import published
import pytest
from click.testing import CliRunner
from test_planners import EVERY_KIND

from spacetime.cli.plan import EXPORTS as NAMED_EXPORTS
from spacetime.cli.plan import PLANNERS
from spacetime.cli.profile import FORMATS
from spacetime.cli.root import cli
from spacetime.plan.export import EXPORTS
from spacetime.plan.plan_json import loads
from spacetime.planners.registry import PLANNERS as REGISTERED
from spacetime.profiles.profile_file import read_profiles, write_profiles
from spacetime.profiles.profile_import import IMPORTERS

WORKLOAD = """
tenants:
  - {name: a, model: m, slo_ms: 100, rate_rps: 550}
  - {name: b, model: m, slo_ms: 200, rate_rps: 20}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """Arguments that name a workload and profiles."""
    (tmp_path / "w.yaml").write_text(WORKLOAD)
    write_profiles(tmp_path / "p.csv", EVERY_KIND)
    return str(tmp_path / "w.yaml"), "--profiles", str(tmp_path / "p.csv")


def spacetime(*arguments: str, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    command = [sys.executable, "-c", f"{block}\nfrom spacetime.cli.root import main; main()"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_command_names_what_is_registered() -> None:
    assert set(PLANNERS) == set(REGISTERED)
    assert set(FORMATS) == set(IMPORTERS)
    assert set(NAMED_EXPORTS) == set(EXPORTS)


def test_a_plan_is_shown_and_written(files: tuple[str, str, str], tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    command = ["plan", *files, "--planner", "parvagpu", "--out", str(out), "--explain"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    plan = loads(out.read_text())
    assert (plan.planner, plan.device) == ("parvagpu", "a100-80gb")
    assert f"parvagpu takes {len(plan.gpus)} × a100-80gb (mig); at least" in found.output
    assert "a: 7 slices with batch 8 × 3 procs answers most per slice" in found.output


def test_an_export_is_all_that_is_printed(files: tuple[str, str, str]) -> None:
    command = ["plan", *files, "--planner", "parvagpu", "--export", "nvidia-smi", "--explain"]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("# Needs root")
    assert "nvidia-smi mig -i 0 -cgi " in found.stdout
    assert "answers most per slice" in found.stderr


@pytest.mark.parametrize("name", REGISTERED)
def test_json_is_the_plan_and_nothing_else(files: tuple[str, str, str], name: str) -> None:
    found = CliRunner().invoke(cli, ["plan", *files, "--planner", name, "--json"])
    assert found.exit_code == 0, found.output
    assert loads(found.stdout).planner == name


@pytest.mark.parametrize("name", REGISTERED)
def test_planning_needs_neither_torch_nor_the_extension(
    files: tuple[str, str, str], name: str
) -> None:
    done = spacetime(
        "plan",
        *files,
        "--planner",
        name,
        "--json",
        blocked=("torch", "cupy", "triton", "spacetime._native"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["planner"] == name


def test_exact_without_scipy_says_what_to_install(files: tuple[str, str, str]) -> None:
    done = spacetime("plan", *files, "--planner", "exact", blocked=("scipy",))
    assert done.returncode == 2
    assert done.stderr == ("spacetime: planner exact needs scipy: pip install 'spacetime[plan]'\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--planner", "parvagpu", "--gpus", "1", "--max-procs", "1"),
            "tenant b: gpus: parvagpu needs 2 devices, there are 1",
        ),
        (("--planner", "best"), "planner: 'best' is none of spacetime, exact"),
        (("--device", "h100-80gb"), "is of a100-80gb, not of h100-80gb"),
        (("--device", "h1000"), "device: 'h1000' is unknown; h100-80gb"),
        (("--set", "slo_factor"), "--set: must be NAME=VALUE, got 'slo_factor'"),
        (
            ("--planner", "parvagpu", "--set", "slo_factor=no"),
            "planner parvagpu: slo_factor must be float, got 'no'",
        ),
        (
            ("--planner", "parvagpu", "--set", "slo_factor=0.01"),
            "tenant a: latency: the fastest point takes 5 ms, the",
        ),
    ],
)
def test_a_refusal_is_one_line_and_status_2(
    files: tuple[str, str, str], arguments: tuple[str, ...], line: str
) -> None:
    done = spacetime("plan", *files, *arguments)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bad_file_is_named_with_its_row(files: tuple[str, str, str]) -> None:
    with Path(files[2]).open("a") as file:
        file.write("m,a100-80gb,mig,1\n")
    done = spacetime("plan", *files)
    assert done.returncode == 2
    where = f"{files[2]}:{len(EVERY_KIND) + 2}"
    assert done.stderr.startswith(f"spacetime: {where}: row: must have 9 fields")


def test_the_published_profiles_are_imported(tmp_path: Path) -> None:
    out = tmp_path / "a100.csv"
    path = str(published.artifact(tmp_path / "parvagpu"))
    found = CliRunner().invoke(cli, ["profile", "--import", "parvagpu", path, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert "of 11 models on a100-80gb in" in found.output
    assert read_profiles(out) == published.parvagpu()
    found = CliRunner().invoke(
        cli, ["profile", "--import", "gpulet", path, "--out", str(out), "--json"]
    )
    assert found.exit_code == 1
    assert "cannot be read: Is a directory" in str(found.exception)
