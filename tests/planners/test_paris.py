"""PARIS and its baselines: the worked idea of the paper, its steps, and what must hold always."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from dataclasses import replace

import published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.devices import mig
from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import Plan, PlanOptions, check_plan, require
from spacetime.plan.plan_json import dumps, loads
from spacetime.planners.paris import Paris, curves_of, knee_batch, segments
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload, log_normal

A100 = device("a100-80gb")
FULL = PlanOptions(max_utilisation=1)
NAMES = ("paris", "homogeneous", "random")


def point(units: int, batch: int, ms: float, model: str = "m") -> Point:
    return Point(model, "a100-80gb", "mig", units, batch, 1, ms, batch / ms * 1000)


# Of the paper: one slice answers 40 requests/s of one input and 20 of two.
SMALL = (point(1, 1, 25), point(1, 2, 50))
LARGE = tuple(point(7, batch, ms) for batch, ms in ((1, 5), (2, 6), (4, 8), (8, 10)))


def ask(rate: float, slo_ms: float = 100, name: str = "t") -> Workload:
    return Workload((Tenant(name, "m", slo_ms, rate),))


def instances(plan: Plan) -> Counter[int]:
    return Counter(part.units for gpu in plan.gpus for part in gpu.partitions)


def test_the_papers_example_needs_one_and_a_half_small_instances() -> None:
    profiles = Profiles((*SMALL, *LARGE))
    # 20 requests/s each of one and two inputs, and 60 of eight.
    weights = {1: 20.0, 2: 20.0, 8: 60.0}
    load = ask(20 + 40 + 480)
    planner_ = Paris(batches=weights, knee=1.0)
    tenant = load.tenants[0]
    curves = curves_of(tenant, profiles, FULL)
    assert segments(tenant, curves, 1.0, 8) == {1: (0, 1), 7: (1, 8)}  # equal rates: knee 1
    wider = Profiles((SMALL[0], point(1, 2, 40), *LARGE))
    shares = planner_.shares(tenant, curves_of(tenant, wider, FULL), FULL)
    # 20/40 + 20/25 = 1.3 instances: one full, the rest beside the eights on the large size.
    assert [(share.units, share.instances) for share in shares] == [(1, 1), (7, 1)]
    assert shares[0].busy == 1
    over = 0.3 / 1.3
    assert shares[1].busy == pytest.approx(20 * over * 0.005 + 20 * over * 0.006 + 60 * 0.010)
    assert sum(share.rate_rps for share in shares) == pytest.approx(540)


def test_what_is_left_goes_where_it_takes_fewest_slices() -> None:
    profiles = Profiles((*SMALL, *LARGE))
    small = Paris(batches={1: 1.0, 2: 1.0}).plan(ask(30), profiles, A100, FULL)
    assert instances(small) == {1: 1}  # 10·25 ms + 10·50 ms of every second
    (large,) = Paris(batches={8: 1.0}).plan(ask(30), profiles, A100, FULL).gpus
    assert [part.units for part in large.partitions] == [7]  # one slice has no batch of eight


def test_knees() -> None:
    curve = [point(1, batch, ms) for batch, ms in ((1, 10), (2, 11), (4, 16), (8, 40), (16, 70))]
    # Throughputs 100, 182, 250, 200, 229: it dips, the highest counts.
    assert knee_batch(curve, 0.8) == 4
    assert knee_batch(curve, 0.7) == 2
    assert knee_batch(curve, 1.0) == 4


def test_segments_ascend_and_the_largest_size_takes_the_rest() -> None:
    points = (
        *(point(1, b, 10 * b) for b in (1, 2, 4)),
        *(point(2, b, 5 + 3 * b) for b in (1, 2, 4, 8)),
        *(point(3, b, 20 + b) for b in (1, 2, 4, 8, 16, 32)),
    )
    tenant = Tenant("t", "m", 60, 10)
    curves = curves_of(tenant, Profiles(points), FULL)
    assert segments(tenant, curves, 0.8, 32) == {1: (0, 1), 2: (1, 4), 3: (4, 32)}
    # An objective that rules out a size's batches shortens its range, or removes it.
    hurried = replace(tenant, slo_ms=13)
    curves = curves_of(hurried, Profiles(points), FULL)
    assert segments(hurried, curves, 0.8, 2) == {1: (0, 1), 2: (1, 2)}


def test_the_distribution_is_log_normal() -> None:
    weights = dict(log_normal(32, 0.9))
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights) == 1
    assert max(weights) == 32
    density = {b: weight * b for b, weight in weights.items()}  # in log b a bell around sqrt(32)
    assert max(density, key=lambda b: density[b]) in (5, 6)
    ratio = density[1] / density[32]
    assert ratio == pytest.approx(1)
    assert log_normal(1, 0.9) == ((1, 1.0),)


def test_requests_that_are_batches_need_not_fill_and_each_size_holds_its_own_whole() -> None:
    profiles = Profiles((*SMALL, *LARGE))
    load = Workload((Tenant("t", "m", 100, 2, batch_mix=((1, 4.0), (2, 1.0), (8, 0.1))),))
    shares = Paris(knee=1.0).shares(
        load.tenants[0], curves_of(load.tenants[0], profiles, FULL), FULL
    )
    assert [(share.units, max(share.requests_rps)) for share in shares] == [(7, 8)]
    plan = Paris(knee=1.0).plan(load, profiles, A100, FULL)
    ((_, _, each),) = plan
    assert (each.batch, each.latency_ms) == (8, 10)  # at 2 inputs a second eight take 3.5 s to come
    assert check_plan(plan, load, profiles, A100, FULL) == ()
    other = replace(plan, policy=None)
    assert check_plan(other, load, profiles, A100, FULL) == ()
    larger = replace(load.tenants[0], batch_mix=((9, 1.0),))
    (broken,) = check_plan(plan, Workload((larger,)), profiles, A100, FULL)
    assert str(broken) == "t: request: holds up to 9 inputs, a batch 8"


def test_plans_name_elsa_and_keep_it_in_json() -> None:
    plan = Paris().plan(ask(300), Profiles((*SMALL, *LARGE)), A100, FULL)
    assert plan.policy == "elsa"
    assert loads(dumps(plan)) == plan
    assert planner("homogeneous").plan(ask(300), Profiles(LARGE), A100, FULL).policy is None


def test_a_given_number_of_devices_is_used_up_in_the_ratio_of_need() -> None:
    profiles = Profiles((*SMALL, *LARGE))
    few = Paris().plan(ask(40), profiles, A100, FULL)
    many = Paris().plan(ask(40), profiles, A100, replace(FULL, gpus=3))
    assert instances(few) == {1: 1} or sum(instances(few).values()) == 1
    assert sum(instances(many).values()) > sum(instances(few).values())
    assert len(many.gpus) <= 3
    assert many.headroom is not None
    assert few.headroom is not None
    assert many.headroom > few.headroom


def test_homogeneous_takes_the_size_that_needs_fewest_devices() -> None:
    profiles = Profiles(
        (*(point(1, b, 20 * b) for b in (1, 2)), *(point(7, b, 18) for b in (1, 2)))
    )
    free = planner("homogeneous").plan(ask(300), profiles, A100, FULL)
    assert instances(free) == {1: 6}
    forced = planner("homogeneous", units=7).plan(ask(300), profiles, A100, FULL)
    assert instances(forced) == {7: 3}
    with pytest.raises(InfeasibleError, match="latency: no instance of 3 slices answers"):
        planner("homogeneous", units=3).plan(ask(300), profiles, A100, FULL)
    with pytest.raises(UnsupportedError, match="units: must be one of"):
        planner("homogeneous", units=5)


def test_random_is_the_same_for_the_same_seed() -> None:
    profiles = Profiles(tuple(point(u, b, 9 + 8 * b / u) for u in mig.SIZES for b in (1, 4, 8)))
    plans = [planner("random", seed=seed).plan(ask(3000), profiles, A100, FULL)
             for seed in (0, 0, 1, 2)]  # fmt: skip
    assert plans[0] == plans[1]
    assert len({str(instances(plan)) for plan in plans}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_refusals_name_tenant_and_bound(name: str) -> None:
    profiles = Profiles((*SMALL, *LARGE))

    def bound(load: Workload, options: PlanOptions = FULL) -> str:
        with pytest.raises(InfeasibleError, match="tenant t:") as caught:
            planner(name).plan(load, profiles, A100, options)
        return caught.value.bound

    assert bound(ask(10, slo_ms=4)) == "latency"
    assert bound(Workload((Tenant("t", "x", 100, 10),))) == "profile"
    assert bound(ask(9000), replace(FULL, gpus=2)) == "gpus"


def test_requests_too_large_to_answer_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="latency: requests of 16 inputs: the largest that 7"):
        Paris(batches={16: 1.0}).plan(ask(10), Profiles(LARGE), A100, FULL)
    for wrong in ({"knee": 0}, {"variance": -1}, {"largest": 0}, {"batches": {0: 1.0}}):
        with pytest.raises(UnsupportedError, match=f"{next(iter(wrong))}: must"):
            planner("paris", **wrong)


def random_profiles(seed: int) -> Profiles:
    draw = random.Random(seed)
    points = []
    for model in "ab":
        fixed, each, scaling = draw.uniform(0.5, 20), draw.uniform(0.1, 6), draw.random()
        points += [
            point(units, batch, (fixed + each * batch / units**scaling) * draw.uniform(0.9, 1.1),
                  model)
            for units in mig.SIZES for batch in (1, 2, 4, 16, 32)
        ]  # fmt: skip
    return Profiles(tuple(p for p in points if draw.random() < 0.9))


def random_workload(seed: int) -> Workload:
    draw = random.Random(seed)
    return Workload(tuple(
        Tenant(f"t{n}", draw.choice("ab"), draw.uniform(10, 400), math.exp(draw.uniform(-2, 8)),
               batch_sizes=draw.choice([(), (), (), (1, 4), (2,)]),
               batch_mix=draw.choice([(), (), ((1, 3.0), (4, 1.0)), log_normal(32, 0.9)]))
        for n in range(draw.randint(1, 6))
    ))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32).map(random_workload), st.integers(0, 2**32).map(random_profiles),
    st.sampled_from([None, 1, 3, 30]), st.sampled_from([0.6, 0.9, 1.0]),
)  # fmt: skip
def test_every_plan_is_sound_or_refused(
    name: str, load: Workload, profiles: Profiles, gpus: int | None, ceiling: float
) -> None:
    options = PlanOptions(gpus=gpus, max_utilisation=ceiling)
    try:
        plan = planner(name).plan(load, profiles, A100, options)
    except InfeasibleError as error:
        named = error.tenant in {tenant.name for tenant in load.tenants}
        bounds = {"profile", "latency", "fill", *(["gpus"] if gpus else [])}
        if named and error.bound in bounds:
            return
        raise
    assert check_plan(plan, load, profiles, A100, options) == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_published_profiles(name: str) -> None:
    profiles = published.parvagpu()
    for scenario in ("S1", "S2", "S3", "S4"):
        load = published.scenario(scenario)
        plan = planner(name).plan(load, profiles, A100, PlanOptions())
        require(plan, load, profiles, A100, PlanOptions())
        assert len(plan.gpus) <= 12


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_tenants_in_seconds(name: str) -> None:
    profiles = Profiles(tuple(point(u, b, 5 + 8 * b / u) for u in mig.SIZES for b in (1, 4, 8, 32)))
    load = Workload(tuple(
        Tenant(f"t{n}", "m", 60.0 + n % 17 * 20, 1.0 + n * 37 % 300) for n in range(1000)
    ))  # fmt: skip
    begin = time.process_time()
    plan = planner(name).plan(load, profiles, A100, PlanOptions())
    assert time.process_time() - begin < 10
    assert check_plan(plan, load, profiles, A100) == ()
