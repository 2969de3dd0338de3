"""`paris --guard`: PARIS where it is best, one size everywhere where that is better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_paris import A100, FULL, point

from spacetime.cli.root import cli
from spacetime.errors import InfeasibleError
from spacetime.plan import PlanOptions, check_plan, plan_json
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.simulation.fixed_plan import SimOptions
from spacetime.simulation.guarded import Guarded
from spacetime.workload.workload import Tenant, Workload

QUICK = SimOptions(duration_ns=2 * 10**9, replications=1)
# The whole device is hardly faster than one slice: requests of eight need not go there.
FLAT = Profiles((
    *(point(1, batch, 4 + 2 * batch) for batch in (1, 2, 4, 8)),
    *(point(7, batch, 3 + batch) for batch in (1, 2, 4, 8)),
))  # fmt: skip
# Seven times the slices, seven times as fast.
STEEP = Profiles((
    *(point(1, batch, 14 * batch) for batch in (1, 2)),
    *(point(7, batch, 2 * batch) for batch in (1, 2, 4, 8)),
))  # fmt: skip


def ask(rate: float, slo_ms: float) -> Workload:
    mix = ((1, 8.0), (8, 1.0))
    return Workload((Tenant("t", "m", slo_ms, rate, batch_mix=mix),), seed=2)


def test_one_size_everywhere_replaces_paris_where_size_gains_nothing() -> None:
    load = ask(3000, 500)
    made = Guarded(draws=QUICK)
    found = made.candidates(load, FLAT, A100, PlanOptions())
    by_label = {each.label: each for each in found}
    assert list(by_label) == ["paris", "1 slices everywhere", "7 slices everywhere"]
    small, paris = by_label["1 slices everywhere"], by_label["paris"]
    assert len(small.plan.gpus) < len(paris.plan.gpus)
    plan = made.plan(load, FLAT, A100, PlanOptions())
    assert plan.planner == "homogeneous"
    assert check_plan(plan, load, FLAT, A100, PlanOptions()) == ()
    assert f"simulated, {small}; beside it paris on {len(paris.plan.gpus)} devices" in (
        plan.explain()
    )


def test_paris_stays_where_it_is_best() -> None:
    load = ask(300, 60)
    plan = Guarded(draws=QUICK).plan(load, STEEP, A100, FULL)
    assert plan.planner == "paris"
    assert plan.policy == "elsa"
    assert "beside it" in plan.explain()


def test_refusals_are_those_of_paris() -> None:
    with pytest.raises(InfeasibleError) as own:
        planner("paris").plan(ask(300, 1), STEEP, A100, FULL)
    with pytest.raises(InfeasibleError) as guarded:
        Guarded(draws=QUICK).plan(ask(300, 1), STEEP, A100, FULL)
    assert str(guarded.value) == str(own.value)


@pytest.mark.parametrize("asked", [["--guard"], ["--set", "guard=true"]])
def test_the_command_takes_it_for_paris_only(tmp_path: Path, asked: list[str]) -> None:
    write_profiles(tmp_path / "p.csv", FLAT)
    load = {"tenants": [{"name": "t", "model": "m", "slo_ms": 500, "rate_rps": 3000,
                         "batch_mix": {"1": 8, "8": 1}}]}  # fmt: skip
    (tmp_path / "w.json").write_text(json.dumps(load))
    args = ["plan", f"{tmp_path}/w.json", "--profiles", f"{tmp_path}/p.csv", *asked, "--json"]
    done = CliRunner().invoke(cli, [*args, "--planner", "paris"], catch_exceptions=False)
    assert plan_json.loads(done.output).planner == "homogeneous"
    other = CliRunner().invoke(cli, [*args, "--planner", "random"])
    assert "guard" in str(other.exception)
