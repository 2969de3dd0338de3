"""Smoothing: always in order, closest along one axis, and never more than the noise explains."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacetime.profiles.monotone import monotone, pooled, slower_with_units, smoothed
from spacetime.profiles.profile import Point

VALUES = st.floats(1e-3, 1e5)
KEYS = st.tuples(st.integers(1, 6), st.integers(1, 6))
GRIDS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=20)
SLACK = 1 + 1e-9  # of exp(log(x))


def in_order(grid: dict[tuple[int, int], float]) -> bool:
    return all(
        grid[u, b] <= grid[v, c] * SLACK
        for (u, b), (v, c) in itertools.permutations(grid, 2)
        if u >= v and b <= c
    )


def off(values: list[float], wanted: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(values, wanted, strict=True))


@given(st.lists(VALUES, max_size=12))
def test_pooled_values_never_fall_and_keep_their_sum(values: list[float]) -> None:
    found = pooled(values)
    assert all(a <= b for a, b in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(values))
    assert pooled(sorted(values)) == sorted(values)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_no_rising_sequence_is_closer(values: list[int]) -> None:
    # All rising sequences of quarters: the best of them is at most as close.
    best = off([float(v) for v in values], pooled(values))
    steps = [n / 2 for n in range(9)]
    for other in itertools.combinations_with_replacement(steps, len(values)):
        assert best <= off([float(v) for v in values], list(other)) + 1e-9


@given(GRIDS)
def test_a_smoothed_grid_is_in_order_and_within_what_was_measured(
    grid: dict[tuple[int, int], float],
) -> None:
    found = monotone(grid)
    assert found.keys() == grid.keys()
    assert in_order(found)
    assert min(grid.values()) <= min(found.values()) * SLACK
    assert max(found.values()) <= max(grid.values()) * SLACK


@given(GRIDS)
def test_what_is_in_order_stays_exactly(grid: dict[tuple[int, int], float]) -> None:
    ordered = {
        (u, b): max(v for (w, c), v in grid.items() if w >= u and c <= b) for u, b in grid
    }  # fmt: skip
    assert monotone(ordered) == ordered


def test_an_outlier_moves_its_neighbours_by_ratios() -> None:
    found = monotone({(1, 1): 1.0, (1, 2): 100.0, (1, 4): 1.0})
    assert found[1, 1] == 1.0
    assert found[1, 2] == found[1, 4] == pytest.approx(10.0)


def test_points_of_other_models_procs_and_tenants_are_apart() -> None:
    def point(model: str, procs: int, tenants: int, batch: int, ms: float) -> Point:
        return Point(
            model, "cpu-2", "cores", 1, batch, procs, ms, batch * procs / ms * 1e3, "measured",
            tenants,
        )  # fmt: skip

    apart = [point("a", 1, 1, 2, 9), point("b", 1, 1, 4, 3), point("a", 2, 1, 4, 3)]
    apart.append(point("a", 1, 2, 4, 3))
    assert smoothed(apart) == apart
    low, high = smoothed([point("a", 1, 1, 2, 9), point("a", 1, 1, 4, 4)])
    assert low.latency_ms == high.latency_ms == pytest.approx(6)
    assert high.throughput_rps == pytest.approx(4 / 6 * 1e3)


def test_what_noise_does_not_explain_stays() -> None:
    """Two cores take twice as long as one, in every round: that is no noise."""

    def point(units: int, batch: int, ms: float) -> Point:
        return Point("m", "cpu-2", "cores", units, batch, 1, ms, batch / ms * 1e3)

    one, two = [point(1, 1, 2.1), point(1, 2, 2.0)], [point(2, 1, 4.0), point(2, 2, 5.0)]
    quiet = {p.key: 0.05 for p in (*one, *two)}
    found = smoothed([*one, *two], quiet)
    assert found[2:] == two
    assert found[0].latency_ms == found[1].latency_ms == pytest.approx(4.2**0.5)
    assert slower_with_units([*one, *two], quiet) == ["m, 1 procs, 1 tenants a launch"]
    noisy = {p.key: 1.0 for p in (*one, *two)}
    assert slower_with_units([*one, *two], noisy) == []
    assert len({p.latency_ms for p in smoothed([*one, *two], noisy) if p.batch == 1}) == 1
    assert smoothed([*one, *two], noisy) == smoothed([*one, *two])
