"""Models of interference: published numbers, exact recovery, and errors that are held out."""

from __future__ import annotations

import random

import pytest

from spacetime.errors import ProfileError
from spacetime.profiles.interference import (
    PUBLISHED,
    Constant,
    IGniter,
    Linear,
    MeasuredInterference,
    MeasuredPair,
    SlowdownModel,
    Use,
    cross_validated,
    fit_constant,
    fit_igniter,
    fit_linear,
)

# Utilisation of batch 32 on a whole RTX 2080 Ti, as published.
VGG, RESNET = Use(0.30, 0.61), Use(0.28, 0.62)


def test_the_published_example() -> None:
    # VGG-16 beside ResNet-50, batch 32 both, on halves of a 2080 Ti.
    found = MeasuredInterference(PUBLISHED["rtx-2080ti"], {"vgg": VGG, "resnet": RESNET})
    assert found.factor("vgg", 50, "resnet", 50) == pytest.approx(1.149, abs=0.002)
    with pytest.raises(ProfileError, match="uses: bert has none; measure its L2"):
        found.factor("vgg", 50, "bert", 50)


@pytest.mark.parametrize("model", [*PUBLISHED.values(), Constant(0.5), Constant(1.3), IGniter()])
def test_alone_costs_nothing_and_company_never_helps(model: SlowdownModel) -> None:
    assert model(VGG, ()) == 1
    assert model(Use(0, 0), (Use(0, 0),)) >= 1
    assert model(VGG, (RESNET,)) >= 1


def test_the_worst_neighbour_counts_for_linear_and_the_sum_for_igniter() -> None:
    linear, quiet = PUBLISHED["rtx-2080ti"], Use(0.01, 0.01)
    assert linear(VGG, (quiet, RESNET)) == linear(VGG, (RESNET,))
    assert IGniter()(VGG, (RESNET, RESNET)) > IGniter()(VGG, (RESNET,))


def test_terms_of_igniter() -> None:
    device = IGniter()
    # Two processes: 4.75·2 − 9 µs a kernel, ResNet-50's 80 kernels in 4 ms of activity.
    own = Use(0.28, 0.62, kernels=80, active_us=4000, power_w=200)
    assert device.delay(own, 1) == pytest.approx(0.5 * 80 / 4000)
    assert device.delay(own, 0) == 0
    assert device.clock(own, ()) == 1
    # 53.5 + 200 + 200 W is 153.5 W above the limit: 1.03 MHz of 1530 each.
    hot = Use(0.2, 0.5, power_w=200)
    assert device.clock(own, (hot,)) == pytest.approx(1 - 1.03 * 153.5 / 1530)
    expected = (1 + 0.0022 * 20 + 0.01) / device.clock(own, (hot,))
    assert device(own, (hot,)) == pytest.approx(expected)


def drawn(truth: SlowdownModel, *, noise: float = 0.0, count: int = 300) -> list[MeasuredPair]:
    draw = random.Random(1)

    def use() -> Use:
        return Use(draw.uniform(0.05, 0.4), draw.uniform(0.2, 0.8), draw.randint(20, 90),
                   draw.uniform(2000, 9000), draw.uniform(50, 200))  # fmt: skip

    pairs = []
    for number in range(count):
        own, other = use(), use()
        slowdown = truth(own, (other,)) * (1 + draw.gauss(0, noise))
        pairs.append(MeasuredPair(f"m{number % 4}", own, (other,), slowdown))
    return pairs


def test_fits_recover_what_made_the_data() -> None:
    truth = Linear(0.11, 0.7, 0.35, 0.09, 1.0)
    found = fit_linear(drawn(truth))
    for field in ("l2_own", "l2_other", "dram_own", "dram_other", "constant"):
        assert getattr(found, field) == pytest.approx(getattr(truth, field), abs=1e-9)
    assert fit_igniter(drawn(IGniter(cache=0.004))).cache == pytest.approx(0.004)
    assert fit_constant(drawn(Constant(1.2))).value == pytest.approx(1.2)


@pytest.mark.parametrize("by_model", [False, True])
def test_the_model_that_made_the_data_wins_on_held_out_pairs(by_model: bool) -> None:
    for name, truth in (("linear", Linear(0.1, 1.5, 0.4, 0.5, 1.0)), ("igniter", IGniter(0.01))):
        best, *others = cross_validated(drawn(truth, noise=0.01), by_model=by_model)
        assert best.name == name
        assert {each.name for each in others} == {"constant", "linear", "igniter"} - {name}
        assert best.mean < 0.02 < others[-1].p90
        assert all(each.mean <= each.p90 <= each.p95 for each in (best, *others))
        assert best.held_out == (300 if by_model else 900)


def test_the_constant_is_never_left_out_and_wins_where_nothing_explains() -> None:
    best, *others = cross_validated(drawn(Constant(1.3), noise=0.1))
    assert best.name == "constant"
    # The linear form has four coefficients to fit noise with.
    assert next(each for each in others if each.name == "linear").mean >= best.mean


def test_held_out_pairs_do_not_shape_the_fit() -> None:
    pairs = drawn(Linear(0.1, 1.5, 0.4, 0.5, 1.0))
    spoiled = [*pairs, *[MeasuredPair("odd", pair.own, pair.others, 3.0) for pair in pairs[:100]]]
    errors = {each.name: each.mean for each in cross_validated(spoiled, by_model=True)}
    assert min(errors.values()) > 0.05


def test_too_little_to_hold_out_is_refused() -> None:
    few = drawn(Constant(1.2), count=3)
    with pytest.raises(ProfileError, match="pairs: must be at least 4"):
        cross_validated(few)
    with pytest.raises(ProfileError, match="at least 2 models"):
        cross_validated(drawn(Constant(1.2), count=1), by_model=True)
    for fit in (fit_constant, fit_linear, fit_igniter):
        with pytest.raises(ProfileError, match="at least one measurement"):
            fit([])
