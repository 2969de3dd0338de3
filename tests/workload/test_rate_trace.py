"""Rates that change: what is in force when, and what a day and bursts look like."""

from __future__ import annotations

import math

import pytest

from spacetime.errors import UnsupportedError
from spacetime.units import SECOND
from spacetime.workload.rate_trace import RateTrace, bursty, diurnal
from spacetime.workload.workload import Tenant, Workload

LOAD = Workload(tuple(Tenant(name, "resnet50", 100.0, 100.0) for name in "abc"))


def test_a_step_is_in_force_from_its_start_and_the_last_for_good() -> None:
    trace = RateTrace(2.0, ((1.0, 5.0), (3.0, 2.0)))
    assert trace.at(0) == trace.at(2 * SECOND - 1) == (1.0, 5.0)
    assert trace.at(2 * SECOND) == trace.at(99 * SECOND) == (3.0, 2.0)
    assert trace.end_ns == 4 * SECOND
    assert trace.highest() == (3.0, 5.0)
    assert trace.highest(0, 2 * SECOND) == (1.0, 5.0)
    assert trace.highest(2 * SECOND, 9 * SECOND) == trace.highest(99 * SECOND) == (3.0, 2.0)


def test_a_day_swings_between_low_and_all_of_the_rate() -> None:
    trace = diurnal(LOAD, seconds=1000, low=0.2, noise=0.0, seed=4)
    for tenant in zip(*trace.rates, strict=True):
        assert min(tenant) == pytest.approx(20, rel=0.01)
        assert max(tenant) == pytest.approx(100, rel=0.01)
        assert sum(tenant) / len(tenant) == pytest.approx(60, rel=0.01)


def test_bursts_have_two_levels_and_about_their_share() -> None:
    load = Workload(tuple(Tenant(f"t{n}", "resnet50", 100.0, 100.0) for n in range(100)))
    trace = bursty(load, seconds=3600, low=0.5, burst_s=60, bursts=3, seed=1)
    rates = [rate for step in trace.rates for rate in step]
    assert set(rates) == {50.0, 100.0}
    assert rates.count(100.0) / len(rates) == pytest.approx(3 * 60 / 3600, abs=0.015)


def test_the_seed_decides() -> None:
    for make in (diurnal, bursty):
        assert make(LOAD, seconds=600, seed=1) == make(LOAD, seconds=600, seed=1)
        assert make(LOAD, seconds=600, seed=1) != make(LOAD, seconds=600, seed=2)


@pytest.mark.parametrize(
    ("step_s", "rates", "field"),
    [(0.0, ((1.0,),), "step_s"), (math.nan, ((1.0,),), "step_s"), (1.0, (), "rates"),
     (1.0, ((1.0,), (1.0, 2.0)), "rates"), (1.0, ((-1.0,),), "rates"),
     (1.0, ((math.inf,),), "rates")],
)  # fmt: skip
def test_a_trace_that_is_none_is_refused(step_s, rates, field) -> None:
    with pytest.raises(UnsupportedError, match=f"{field}: must"):
        RateTrace(step_s, rates)
