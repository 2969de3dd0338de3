"""The package's face: what a README shows is reached by public names, each when it is used."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spacetime as st
from spacetime.isolation import mps
from spacetime.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.plan_json import dumps
from spacetime.profiles.profile import Point
from spacetime.profiles.profile_file import write_profiles

CORES = len(os.sched_getaffinity(0))
CPU = f"cpu-{CORES}"
LATE_MS = 30_000.0  # what is tried is that the names fit together, not how fast this machine is
WORK = f"""\
tenants:
  - {{name: eye, model: net, slo_ms: {LATE_MS}, rate_rps: 20}}
  - {{name: ear, model: net, slo_ms: {LATE_MS}, rate_rps: 20}}
"""
README = f"""\
import spacetime as st

workload = st.read_workload("work.yaml")
profiles = st.read_profiles("profiles.csv")
plan = st.read_plan("plan.json")
assert st.check_plan(plan, workload, profiles) == ()

facts, options = st.device_facts("{CPU}"), st.PlanOptions(max_utilisation=0.5)
other = st.planner("time-only").plan(workload, profiles, facts, options)
assert st.check_plan(other, workload, profiles, facts, options) == ()

import sys
assert "torch" not in sys.modules  # planning needs none of it
import torch

net, x = torch.nn.Linear(4, 2).eval(), torch.ones(1, 4)
with st.PlannedSession(plan, workload, profiles, device="cpu") as session:
    eye, ear = (session.add(net, name=name, example_inputs=(x,)) for name in ("eye", "ear"))
    print(torch.allclose(eye(x), net(x)), torch.allclose(ear.submit(x).result(60), net(x)))
"""


def write_files(folder: Path) -> None:
    """A workload, profiles of this CPU, and a plan with the two tenants on one core."""
    (folder / "work.yaml").write_text(WORK)
    write_profiles(folder / "profiles.csv", [
        Point("net", CPU, "cores", units, batch, 1, batch, 1000.0)
        for units in sorted({1, CORES}) for batch in (1, 4)
    ])  # fmt: skip
    turns = tuple(Assignment(name, 1, 20, LATE_MS) for name in ("eye", "ear"))
    gpu = GpuPlan(0, (PartitionPlan("p", "cores", 1, turns),))
    (folder / "plan.json").write_text(dumps(Plan("hand", CPU, (gpu,))))


def test_files_are_read_checked_and_run_by_public_names_alone(tmp_path: Path) -> None:
    write_files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", README], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env=os.environ | {"PYTHONPATH": str(Path(st.__file__).parents[1])}, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "True True", done.stderr


def test_every_name_is_handed_on_and_typed() -> None:
    for name in st.__all__:
        value = getattr(st, name)
        assert value is mps or callable(value), name
    shown = next(
        node
        for node in ast.parse(Path(st.__file__).read_text()).body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    )
    aliases = {n.asname for n in ast.walk(shown) if isinstance(n, ast.alias)}
    others = {n.id for n in ast.walk(shown) if isinstance(n, ast.Name)}
    assert set(st.__all__) <= aliases | others
    assert set(st.__all__) <= set(dir(st))
    with pytest.raises(AttributeError, match="has no attribute 'check'"):
        st.check  # noqa: B018


def test_the_isolation_page_needs_no_inner_module() -> None:
    page = (Path(__file__).parents[2] / "docs" / "isolation.md").read_text()
    names = set(re.findall(r"\bst\.mps\.(\w+)\(", page))
    assert {"daemon", "client_environment", "granted_sms"} <= names
    assert all(callable(getattr(st.mps, name)) for name in names)
    assert {st.mps_shares.__module__, st.mig_shares.__module__} == {"spacetime.isolation.shares"}


def test_a_plan_is_held_to_the_device_of_its_profiles(tmp_path: Path) -> None:
    write_files(tmp_path)
    load = st.read_workload(str(tmp_path / "work.yaml"))
    points = st.read_profiles(tmp_path / "profiles.csv")
    plan = st.read_plan(str(tmp_path / "plan.json"))
    assert st.check_plan(plan, load, points) == ()
    elsewhere = st.check_plan(plan, load, points, st.device_facts(f"cpu-{CORES + 1}"))
    assert [str(broken) for broken in elsewhere] == [
        f"plan: device: is for {CPU}, the device is cpu-{CORES + 1}"
    ]
