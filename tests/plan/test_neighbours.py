"""Interference in the checker: neighbours lengthen launches, instances of MIG do not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gpulet import profile, workloads
from test_igniter import CURVES, FULL, TURING, V100, example, points

from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, PlanError
from spacetime.plan import (
    Assignment,
    GpuPlan,
    PartitionPlan,
    Plan,
    PlanOptions,
    check_plan,
    require,
)
from spacetime.plan.neighbours import slower
from spacetime.planners.igniter import Igniter
from spacetime.profiles.interference import PUBLISHED, Constant, MeasuredInterference, Use
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload


def hand(kind: str, units: tuple[int, ...], on: str = "rtx-2080ti") -> tuple[Plan, Profiles]:
    starts = (0, 4) if kind == "mig" else (None, None)
    parts = tuple(
        PartitionPlan(f"p{n}", kind, size, (Assignment("ab"[n], 8, 160, 93.75),), start)
        for n, (size, start) in enumerate(zip(units, starts, strict=True))
    )
    found = tuple(
        Point(model, on, kind, size, 8, 1, 40, 200) for model in "mn" for size in set(units)
    )
    return Plan("hand", on, (GpuPlan(0, parts),)), Profiles(found)


LOAD = Workload((Tenant("a", "m", 100, 160), Tenant("b", "n", 100, 160)))


def test_a_neighbour_lengthens_launches_and_lowers_rates() -> None:
    plan, profiles = hand("mps", (50, 50))
    # Filled in 43.75 ms, run in 40: 83.75, and a fifth longer 91.75; 160 of 200 and of 166.7 req/s.
    assert check_plan(plan, LOAD, profiles, TURING, FULL, interference=Constant(1.2)) == ()
    less = PlanOptions(max_utilisation=0.9)
    broken = check_plan(plan, LOAD, profiles, TURING, less, interference=Constant(1.2))
    assert {(v.where, v.bound) for v in broken} == {("p0", "utilisation"), ("p1", "utilisation")}
    broken = check_plan(plan, LOAD, profiles, TURING, FULL, interference=Constant(1.5))
    assert {v.bound for v in broken} == {"fill", "promise", "utilisation"}
    with pytest.raises(PlanError, match=r"within 103\.8 ms, the objective is 100 ms"):
        require(plan, LOAD, profiles, TURING, FULL, interference=Constant(1.5))


def test_instances_of_mig_slow_nobody_and_models_are_told_apart() -> None:
    a100 = device("a100-80gb")
    plan, profiles = hand("mig", (3, 3), "a100-80gb")
    assert check_plan(plan, LOAD, profiles, a100, FULL, interference=Constant(9)) == ()
    uses = {"m": Use(0.1, 0.1), "n": Use(0.6, 0.8)}
    cost = MeasuredInterference(PUBLISHED["rtx-2080ti"], uses)
    (gpu,) = hand("mps", (50, 50))[0].gpus
    factors = slower(gpu, {"a": "m", "b": "n"}, cost)
    assert factors["p0"]["a"] == cost.factor("m", 50, "n", 50) > 1
    assert factors["p0"]["a"] > factors["p1"].get("b", 1.0)


def test_plans_that_count_interference_pass_where_others_do_not() -> None:
    known = Profiles(tuple(p for name, curve in CURVES.items() for p in points(name, curve)))
    load, cost = example("vgg19", "resnet50"), Constant(1.2)
    aware = Igniter(interference=cost).plan(load, known, V100, FULL)
    assert check_plan(aware, load, known, V100, FULL, interference=cost) == ()
    blind = Igniter().plan(load, known, V100, FULL)
    assert check_plan(blind, load, known, V100, FULL) == ()
    assert check_plan(blind, load, known, V100, FULL, interference=cost) != ()


@settings(max_examples=80, deadline=None)
@given(workloads, profile, st.floats(1, 1.6))
def test_every_plan_of_igniter_keeps_what_its_neighbours_cost(
    load: Workload, profiles: Profiles, factor: float
) -> None:
    cost = Constant(factor)
    try:
        plan = Igniter(interference=cost).plan(load, profiles, TURING, PlanOptions())
    except InfeasibleError:
        return
    assert check_plan(plan, load, profiles, TURING, interference=cost) == ()
