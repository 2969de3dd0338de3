"""gpulet and its baselines: the papers' worked examples, their rules, and what must hold always."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import data

from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan, PlanOptions, check_plan
from spacetime.planners.gpulet import Gpulet, sizes_for
from spacetime.planners.ideal import layouts
from spacetime.planners.packing.board import Tables
from spacetime.planners.packing.cycle import Demand, alone, saturated_rps, together
from spacetime.planners.packing.knee import knee_of
from spacetime.planners.registry import planner
from spacetime.planners.self_tuning import max_min_fair, tuned_percent
from spacetime.profiles import profile_import
from spacetime.profiles.interference import PUBLISHED, Constant, MeasuredInterference, Use
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

DEVICE = device("rtx-2080ti")
FULL = PlanOptions(max_utilisation=1)
NAMES = ("gpulet", "sbp", "greedy", "self-tuning", "ideal")
SIZES = (20, 40, 50, 60, 80, 100)


def point(model: str, units: int, batch: int, ms: float) -> Point:
    return Point(model, "rtx-2080ti", "mps", units, batch, 1, ms, batch / ms * 1000)


def measured(model: str, batches: dict[int, float]) -> tuple[Point, ...]:
    return tuple(point(model, 100, batch, ms) for batch, ms in batches.items())


# Nexus (SOSP'19) §4.1: latency of a batch of each model on a whole device.
NEXUS = {
    "a": measured("a", {4: 50, 8: 75, 16: 100}),
    "b": measured("b", {4: 50, 8: 90, 16: 125}),
    "c": measured("c", {4: 60, 8: 95, 16: 125}),
}
OBJECTIVES = {"a": 200.0, "b": 250.0, "c": 250.0}


def asks(model: str, rate: float) -> Demand:
    return Demand(Tenant(model, model, OBJECTIVES[model], rate), rate, NEXUS[model])


def test_nexus_b_joins_the_cycle_of_a_and_c_does_not() -> None:
    fit = together([asks("a", 64), asks("b", 32)], FULL)
    assert fit is not None
    a, b = fit.assignments
    assert (a.batch, a.duty_ms, a.latency_ms) == (8, 125, 200)
    assert (b.batch, b.duty_ms, b.latency_ms) == (4, 125, 175)
    assert fit.busy == 1
    assert together([asks("a", 64), asks("c", 32)], FULL) is None
    # Waiting for all turns, a request of A could take 125 + 125 ms.
    assert together([asks("a", 64), asks("b", 32)], PlanOptions(max_utilisation=1, turns="all")) \
        is None  # fmt: skip


def test_nexus_a_saturated() -> None:
    assert saturated_rps(asks("a", 1), FULL) == 160
    fit = alone(asks("a", 160), FULL)
    assert fit is not None
    assert fit.assignments[0].batch == 16
    assert alone(asks("a", 161), FULL) is None


def test_nexus_packs_the_example_on_two_devices() -> None:
    tenants = tuple(asks(model, rate).tenant for model, rate in (("a", 64), ("b", 32), ("c", 32)))
    profiles = Profiles(sum(NEXUS.values(), ()))
    found = planner("sbp").plan(Workload(tenants), profiles, DEVICE, FULL)
    placed = [
        {each.tenant for each in part.tenants} for gpu in found.gpus for part in gpu.partitions
    ]
    assert sorted(map(sorted, placed)) == [["a", "b"], ["c"]]
    many = Workload((Tenant("a", "a", 200.0, 1000),))  # 6.25 times what a device can do
    assert len(planner("sbp").plan(many, profiles, DEVICE, FULL).gpus) == 7


SERVABLE = {  # req/s of four models, read off Fig. 3 with the released code's overheads
    "goo": (400, 568, 609, 638, 658, 663),
    "res": (186, 319, 359, 397, 440, 454),
    "ssd": (179, 221, 228, 232, 242, 249),
    "vgg": (94, 237, 269, 300, 331, 348),
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("gain", (40, 40, 40, 40)),
        ("curvature", (80, 80, 50, 80)),
        ("curvature-normalised", (60, 60, 40, 60)),
        ("per-unit", (20, 20, 20, 40)),
        ("none", (100, 100, 100, 100)),
    ],
)
def test_each_rule_finds_its_own_knee(rule: str, expected: tuple[int, ...]) -> None:
    found = [
        knee_of(list(zip(SIZES, rates, strict=True)), rule)  # type: ignore[arg-type]
        for rates in SERVABLE.values()
    ]
    assert tuple(found) == expected


def test_a_size_that_serves_nothing_is_no_knee() -> None:
    assert knee_of([(20, 0.0), (40, 0.0), (50, 10.0), (100, 10.2)], "per-unit") == 50
    assert knee_of([(20, 0.0), (50, 10.0), (100, 10.2)], "gain") == 50
    with pytest.raises(ValueError, match="above 0"):
        knee_of([(20, 0.0)], "gain")
    with pytest.raises(UnsupportedError, match="knee: 'bend' is none of gain"):
        knee_of([(20, 1.0)], "bend")  # type: ignore[arg-type]


def linear(model: str, ms: float) -> tuple[Point, ...]:
    """A model that gains from size up to 60 percent and nothing after."""
    return tuple(
        point(model, units, batch, (ms + batch) * 60 / min(units, 60))
        for units, batch in product(SIZES, (1, 4, 16))
    )


def test_ideal_size_is_the_smaller_of_knee_and_required() -> None:
    profiles = Profiles(linear("m", 5))
    tables = Tables(profiles, FULL)
    for rate in range(10, 3000, 90):
        tenant = Tenant("t", "m", 100.0, float(rate))
        found = sizes_for(tenant, rate, SIZES, tables, "gain")
        serving = [units for units in SIZES if tables.saturated_rps(tenant, units) >= rate]
        assert found.required == (serving[0] if serving else None)
        assert found.ideal == min([found.knee, *serving])
        assert found.knee == 40


def test_a_pair_of_sizes_and_no_other() -> None:
    with pytest.raises(UnsupportedError, match="pairs: must be two parts of 100"):
        Gpulet(pairs=((30, 60),))
    with pytest.raises(UnsupportedError, match="planner gpulet: 'int' object is not iterable"):
        planner("gpulet", pairs=5)
    with pytest.raises(UnsupportedError, match="interference: must be a number or a model, got"):
        planner("gpulet", interference="much")
    with pytest.raises(UnsupportedError, match="knee: 5 is none of gain"):
        planner("gpulet", knee=5)
    with pytest.raises(UnsupportedError, match="most_tenants"):
        Gpulet(most_tenants=0)
    profiles = Profiles(linear("m", 5))
    tenants = tuple(Tenant(f"t{i}", "m", 40.0, 700.0) for i in range(4))
    found = Gpulet(pairs=((20, 80),)).plan(Workload(tenants), profiles, DEVICE, FULL)
    assert {part.units for gpu in found.gpus for part in gpu.partitions} <= {20, 80, 100}


def test_layouts_of_equal_devices_are_tried_once() -> None:
    assert len(list(layouts(Gpulet(), 4))) == 35  # of 4^4 = 256 in the paper


def test_ideal_refuses_to_take_forever() -> None:
    many = Workload((Tenant("t", "m", 100.0, 40_000.0),))
    with pytest.raises(InfeasibleError, match=r"t: time: \d+ layouts of \d+ devices are more than"):
        planner("ideal").plan(many, Profiles(linear("m", 5)), DEVICE, FULL)


def test_shares_of_self_tuning() -> None:
    assert tuned_percent([(20, 10.0), (40, 30.0)], 5) == 10
    assert tuned_percent([(20, 10.0), (40, 30.0)], 99) == 40
    assert max_min_fair([50, 10, 90], 100) == [45, 10, 45]


def test_refusals_name_tenant_and_bound() -> None:
    profiles = Profiles(linear("m", 5))

    def bound(name: str, tenant: Tenant, options: PlanOptions = FULL) -> tuple[str, str]:
        with pytest.raises(InfeasibleError) as caught:
            planner(name).plan(Workload((tenant,)), profiles, DEVICE, options)
        return caught.value.tenant, caught.value.bound

    for name in NAMES:
        assert bound(name, Tenant("t", "m", 11.0, 1.0)) == ("t", "latency")  # 6 ms, twice
        assert bound(name, Tenant("t", "x", 100.0, 1.0)) == ("t", "profile")
        two = PlanOptions(gpus=2, max_utilisation=1)
        assert bound(name, Tenant("t", "m", 100.0, 9000.0), two) == ("t", "gpus")


def test_reasons_say_knee_and_requirement() -> None:
    profiles = Profiles(linear("m", 5))
    one = Workload((Tenant("t", "m", 100.0, 400.0),))
    said = Gpulet().plan(one, profiles, DEVICE, FULL).explain()
    assert "t: 400 req/s on 40 percent of its own: its rate requires 40 percent" in said
    assert "the knee by gain is 40 percent" in said


MODELS = ("a", "b", "c")


def random_profiles(seed: int) -> Profiles:
    """Models of any shape, some of their points missing. Drawn here: Hypothesis prefers trivia."""
    draw = random.Random(seed)
    points = []
    for model in MODELS:
        fixed, each, scaling = draw.uniform(0.2, 10), draw.uniform(0.05, 4), draw.random()
        for units, batch in product(SIZES, (1, 2, 8, 32)):
            ms = (fixed + each * batch * (100 / units) ** scaling) * draw.uniform(0.9, 1.1)
            points.append(point(model, units, batch, ms))
    return Profiles(tuple(p for p in points if draw.random() < 0.9))


def random_workload(seed: int) -> Workload:
    draw = random.Random(seed)
    return Workload(tuple(
        Tenant(
            f"t{number}", draw.choice(MODELS), draw.uniform(20, 500), draw.uniform(0.05, 300),
            batch_sizes=draw.choice([(), (), (), (1, 2), (8,), (32,)]),
            batch_mix=draw.choice([(), (), ((1, 1.0), (2, 2.0)), ((8, 1.0),)]),
        )
        for number in range(draw.randint(1, 9))
    ))  # fmt: skip


seeds = st.integers(0, 2**32)
profile, workloads = seeds.map(random_profiles), seeds.map(random_workload)
asked = st.builds(
    PlanOptions,
    gpus=st.sampled_from([1, 2, 3]),
    max_utilisation=st.sampled_from([0.6, 0.9, 1.0]),
    turns=st.sampled_from(["own", "all"]),
)


def plan_or_none(
    made: object, load: Workload, profiles: Profiles, options: PlanOptions
) -> Plan | None:
    try:
        found: Plan = made.plan(load, profiles, DEVICE, options)  # type: ignore[attr-defined]
    except InfeasibleError as error:
        named = (error.tenant in {tenant.name for tenant in load.tenants}, error.bound)
        if named in {(True, bound) for bound in ("profile", "latency", "gpus")}:
            return None
        raise
    assert check_plan(found, load, profiles, DEVICE, options) == ()
    return found


@settings(max_examples=150)
@given(workloads, profile, asked)
def test_every_plan_is_sound_or_refused(
    load: Workload, profiles: Profiles, options: PlanOptions
) -> None:
    for name in NAMES:
        found = plan_or_none(planner(name), load, profiles, options)
        for gpu in found.gpus if found else ():
            assert len(gpu.partitions) <= 2
            assert sum(part.units for part in gpu.partitions) <= 100
            assert {part.units for part in gpu.partitions} <= set(SIZES)


@settings(max_examples=40)
@given(workloads, profile, asked)
def test_what_needs_some_devices_is_admitted_on_as_many(
    load: Workload, profiles: Profiles, options: PlanOptions
) -> None:
    for name in ("gpulet", "sbp", "greedy", "self-tuning"):
        if found := plan_or_none(planner(name), load, profiles, replace(options, gpus=None)):
            same = replace(options, gpus=len(found.gpus))
            assert plan_or_none(planner(name), load, profiles, same) is not None


@settings(max_examples=150)
@given(workloads, profile, asked, st.sampled_from(["gain", "curvature", "none"]))
def test_ideal_admits_whatever_gpulet_admits(
    load: Workload, profiles: Profiles, options: PlanOptions, knee: str
) -> None:
    own = Gpulet(knee=knee)  # type: ignore[arg-type]
    if found := plan_or_none(own, load, profiles, options):
        best = plan_or_none(planner("ideal", gpulet=own), load, profiles, options)
        assert best is not None
        assert len(best.gpus) <= len(found.gpus)


@settings(max_examples=150)
@given(workloads, profile, asked, st.floats(1, 2))
def test_counting_interference_admits_a_subset(
    load: Workload, profiles: Profiles, options: PlanOptions, factor: float
) -> None:
    aware = Gpulet(interference=factor)
    found = plan_or_none(aware, load, profiles, options)
    assert found is None or plan_or_none(Gpulet(), load, profiles, options) is not None


def test_interference_shrinks_what_a_neighbour_leaves() -> None:
    profiles = Profiles(linear("m", 5))
    load = Workload((Tenant("t", "m", 100.0, 500.0), Tenant("u", "m", 100.0, 500.0)))
    slowed = Constant(1.5)
    one = PlanOptions(gpus=1, max_utilisation=1)
    for found in (Gpulet(), Gpulet(interference=slowed)):
        parts = found.plan(load, profiles, DEVICE, FULL).gpus
        assert len(parts) == (1 if found.interference is None else 2)
    with pytest.raises(InfeasibleError, match="gpus"):
        Gpulet(interference=slowed).plan(load, profiles, DEVICE, one)


SLO_MS = {"googlenet": 66.0, "resnet50": 108.0, "ssd_mobilenet_v1": 202.0, "vgg16": 142.0}


def test_the_published_models() -> None:
    profiles = profile_import.gpulet(data("gpulet_fig3_latency.csv"))
    load = Workload(tuple(Tenant(m, m, slo, 400.0) for m, slo in SLO_MS.items()))
    counts = {name: len(planner(name).plan(load, profiles, DEVICE, FULL).gpus) for name in NAMES}
    assert counts["ideal"] <= counts["gpulet"] <= counts["sbp"]
    uses = {
        "googlenet": Use(0.25, 0.56), "resnet50": Use(0.28, 0.62),
        "ssd_mobilenet_v1": Use(0.28, 0.61), "vgg16": Use(0.30, 0.61),
    }  # fmt: skip
    aware = Gpulet(interference=MeasuredInterference(PUBLISHED["rtx-2080ti"], uses))
    found = aware.plan(load, profiles, DEVICE, FULL)
    assert check_plan(found, load, profiles, DEVICE, FULL) == ()
    assert len(found.gpus) >= counts["gpulet"]


@pytest.mark.parametrize("name", ["gpulet", "sbp", "greedy", "self-tuning"])
def test_a_thousand_tenants_in_seconds(name: str) -> None:
    profiles = Profiles(tuple(p for n, model in enumerate(MODELS) for p in linear(model, 3 + n)))
    load = Workload(tuple(
        Tenant(f"t{n}", MODELS[n % 3], 40.0 + n % 17 * 20, 1.0 + n * 37 % 300) for n in range(1000)
    ))  # fmt: skip
    begin = time.process_time()
    found = planner(name).plan(load, profiles, DEVICE, FULL)
    assert time.process_time() - begin < 10
    assert check_plan(found, load, profiles, DEVICE, FULL) == ()
