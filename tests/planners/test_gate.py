"""What holds for every planner: idle tenants have a place, absurd demands are refused at once."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from spacetime.cli.root import cli
from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, PlanOptions, check_plan, plan_json
from spacetime.planners.gate import MOST_GPUS
from spacetime.planners.registry import PLANNERS, planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.workload.workload import Tenant, Workload

A100 = device("a100-80gb")
WORK = {"light": 0.5, "heavy": 1.5}  # ms an input on a slice


def profiled(kind: str = "mig", models: tuple[str, ...] = tuple(WORK)) -> Profiles:
    sizes = {"mig": (1, 2, 3, 4, 7), "mps": (20, 40, 50, 60, 80, 100)}[kind]
    whole = {"mig": 7, "mps": 100}[kind]
    return Profiles(tuple(
        Point(model, A100.name, kind, units, batch, procs, ms, batch * procs / ms * 1000)
        for model in models
        for units in sizes
        for batch in (1, 4, 16)
        for procs in (1, 2, 3)
        for ms in [(1 + WORK[model] * batch * whole / units / 7) * (1 + 0.5 * (procs - 1))]
    ))  # fmt: skip


def load(**rates: float) -> Workload:
    """A tenant a rate: those called h... have the heavy model."""
    return Workload(tuple(
        Tenant(name, "heavy" if name.startswith("h") else "light", slo_ms=90, rate_rps=rate)
        for name, rate in rates.items()
    ))  # fmt: skip


def planned(name: str, workload: Workload, **options: int) -> tuple[Plan, Profiles]:
    """By the kind of partition the planner wants."""
    refused: Exception | None = None
    for kind in ("mig", "mps"):
        profiles = profiled(kind)
        limits = PlanOptions(**options)
        try:
            return planner(name).plan(workload, profiles, A100, limits), profiles
        except InfeasibleError as error:
            refused = error
    raise refused or AssertionError


@pytest.mark.parametrize("name", PLANNERS)
def test_an_idle_tenant_has_a_place_and_costs_no_device(name: str) -> None:
    asking = load(a=120, h=40)
    with_idle = load(a=120, h=40, idle=0, h_idle=0)
    without, _ = planned(name, asking)
    plan, profiles = planned(name, with_idle)
    assert not check_plan(plan, with_idle, profiles, A100)
    assert len(plan.gpus) == len(without.gpus)
    assert {each.tenant: each.rate_rps for _, _, each in plan if each.idle} == {
        "idle": 0, "h_idle": 0,
    }  # fmt: skip
    kept = plan.without_idle()
    assert [part.tenants for gpu in kept.gpus for part in gpu.partitions] == [
        part.tenants for gpu in without.gpus for part in gpu.partitions
    ]
    assert plan.headroom == without.headroom
    assert plan_json.loads(plan_json.dumps(plan)) == plan
    assert sum(plan.routes("idle").values()) == 1


@pytest.mark.parametrize("name", PLANNERS)
def test_who_are_all_idle_share_the_smallest_partition(name: str) -> None:
    nobody = load(a=0, h=0)
    plan, profiles = planned(name, nobody)
    assert not check_plan(plan, nobody, profiles, A100)
    (gpu,) = plan.gpus
    (part,) = gpu.partitions
    assert (part.units, len(part.tenants), plan.headroom) == (1, 2, None)


def test_an_idle_tenant_without_a_place_breaks_the_plan() -> None:
    plan, profiles = planned("parvagpu", load(a=120))
    (broken,) = check_plan(plan, load(a=120, b=0), profiles, A100)
    assert str(broken) == "b: place: is on no partition; at rate 0 it needs one too"
    (gpu,) = plan.gpus
    idle = replace(gpu.partitions[0].tenants[0], rate_rps=0.0)
    part = replace(gpu.partitions[0], tenants=(idle,))
    unserved = replace(plan, gpus=(replace(gpu, partitions=(part, *gpu.partitions[1:])),))
    assert "rate" in {each.bound for each in check_plan(unserved, load(a=120), profiles, A100)}


def test_idle_tenants_hold_memory_too() -> None:
    points = tuple(replace(p, memory_mib=4000.0) for p in profiled() if p.procs == 1)
    workload = load(a=10, **{f"i{n}": 0 for n in range(20)})
    profiles = Profiles(points)
    plan = planner("mig-only").plan(workload, profiles, A100, PlanOptions())
    assert not check_plan(plan, workload, profiles, A100)
    assert len(plan.gpus) == 2  # 9.6 GiB a slice hold two processes: seven slices hold 14
    with pytest.raises(InfeasibleError, match="gpus: is idle, and none of the 1 devices"):
        planner("mig-only").plan(workload, profiles, A100, PlanOptions(gpus=1))


def test_a_model_nobody_measured_is_refused_also_where_it_is_idle() -> None:
    workload = load(a=10, h=0)
    with pytest.raises(InfeasibleError, match="tenant h: profile: no point of heavy"):
        planner("parvagpu").plan(workload, profiled(models=("light",)), A100, PlanOptions())


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize(("rate", "gpus"), [(1e9, None), (1e9, 10**6), (2e6, 8)])
def test_a_rate_beyond_all_devices_is_refused_before_any_search(
    name: str, rate: float, gpus: int | None
) -> None:
    workload = load(a=rate, h=rate, b=5)
    begin = time.process_time()
    for kind in ("mig", "mps"):
        with pytest.raises(InfeasibleError, match=r"tenant h: gpus: any plan needs") as caught:
            planner(name).plan(workload, profiled(kind), A100, PlanOptions(gpus=gpus))
        there = "there are 8" if gpus == 8 else f"a plan has at most {MOST_GPUS}"
        assert there in str(caught.value)
    assert time.process_time() - begin < 2


def test_from_the_command_line_to_the_report(tmp_path: Path) -> None:
    write_profiles(tmp_path / "p.csv", profiled())
    tenants = [
        {"name": name, "model": "light", "slo_ms": 90, "rate_rps": rate}
        for name, rate in (("a", 100), ("idle", 0))
    ]
    (tmp_path / "w.json").write_text(json.dumps({"tenants": tenants}))
    files = [str(tmp_path / name) for name in ("w.json", "p.csv", "plan.json")]
    words = ["plan", files[0], "--profiles", files[1]]
    for more in (["--out", files[2]], ["--explain"], ["--advise"], ["--calm"], ["--json"]):
        found = CliRunner().invoke(cli, [*words, *more])
        assert found.exit_code == 0, found.output
        assert not re.search(r"\b(nan|inf)\b", found.output, re.IGNORECASE)
    words = ["simulate", files[2], "--workload", files[0], "--profiles", files[1], "--json"]
    found = CliRunner().invoke(cli, words)
    report = json.loads(found.output, parse_constant=pytest.fail)
    assert report["tenants"]["idle"]["attainment"] is None
    assert report["tenants"]["idle"]["confidence_95"]["attainment"]["mean"] is None
    assert report["tenants"]["a"]["attainment"] == 1
