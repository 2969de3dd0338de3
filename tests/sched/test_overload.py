"""More is asked than can be answered: in virtual time, goodput stays at its peak whatever is asked.

Launches take as long as predicted only in the mean: with every request served on the edge of its
deadline, a quarter of these cases keep less than 95 %, down to 73 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.policy import Policy
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimNoise,
    SimResult,
    SimTenant,
    simulate,
)

LOADS = (0.5, 1.0, 1.5, 2.0, 5.0)  # of what the lanes can do
LAUNCHES = 300  # of the largest bucket, one after the other: how long each simulation is


@dataclass(frozen=True)
class Case:
    """Lanes that are alike, `families` of `members` tenants each, and one objective."""

    lanes: int
    families: int
    members: int
    fixed_us: int  # of a launch, whatever its batch
    sample_us: int
    largest: int
    rounds: float  # the objective, in full launches of every family one after the other
    queue_limit: int
    order: str
    batch: str
    noise_cv: float

    @property
    def latency_ns(self) -> dict[int, int]:
        """Of each bucket."""
        buckets = [b for b in (1, 2, 4, 8, 16) if b <= self.largest]
        return {b: 1000 * (self.fixed_us + b * self.sample_us) for b in buckets}

    @property
    def capacity_rps(self) -> float:
        """What the lanes answer when all launches are full."""
        full = 1 if self.batch == "one" else self.largest
        return self.lanes * full / self.latency_ns[full] * 1e9

    def at(self, load: float) -> tuple[SimResult, float]:
        """What became of `load` times the capacity, and the goodput as a part of it."""
        latency = self.latency_ns
        horizon = LAUNCHES * latency[self.largest]
        tenants = self.families * self.members
        run = simulate(
            policy=Policy(shed=True, order=self.order, batch=self.batch),
            lanes=[LaneSpec()] * self.lanes,
            families=[FamilySpec.uniform(self.lanes, latency)] * self.families,
            tenants=[
                SimTenant(
                    family=number % self.families,
                    arrivals=SimArrivals(rate_rps=load * self.capacity_rps / tenants),
                    slo_ns=round(self.rounds * self.families * latency[self.largest]),
                    queue_limit=self.queue_limit,
                )
                for number in range(tenants)
            ],
            noise=SimNoise(kind="lognormal", cv=self.noise_cv),
            horizon_ns=horizon,
        )
        met = sum(tenant.met for tenant in run.tenants)
        return run, met / horizon * 1e9 / self.capacity_rps


CASES = st.builds(
    Case,
    lanes=st.integers(1, 3),
    families=st.integers(1, 3),
    members=st.integers(1, 4),
    fixed_us=st.integers(50, 5000),
    sample_us=st.integers(500, 1000),
    largest=st.sampled_from([1, 2, 4, 8, 16]),
    rounds=st.floats(3, 12),
    queue_limit=st.sampled_from([16, 64, 256]),
    order=st.sampled_from(["fifo", "edf"]),
    batch=st.sampled_from(["one", "greedy", "slack"]),
    noise_cv=st.sampled_from([0.1, 0.3]),
)


@settings(max_examples=30, deadline=None)
@given(case=CASES)
def test_goodput_at_five_times_the_capacity_is_that_of_the_peak(case: Case) -> None:
    goodputs = []
    for load in LOADS:
        run, goodput = case.at(load)
        for tenant in run.tenants:
            assert tenant.offered == tenant.completed + sum(tenant.dropped.values())
        goodputs.append(goodput)
    assert goodputs[-1] >= 0.95 * max(goodputs)


@settings(max_examples=30, deadline=None)
@given(case=CASES, own_family=st.booleans(), shed=st.booleans(), lend=st.booleans())
def test_who_matters_waits_for_one_launch_of_a_flood(
    case: Case, own_family: bool, shed: bool, lend: bool
) -> None:
    latency = case.latency_ns
    most = latency[1] + latency[case.largest]
    flood = SimArrivals(rate_rps=5 * case.capacity_rps)
    matters = SimArrivals(process="constant", rate_rps=0.99e9 / most)  # one at a time
    run = simulate(
        policy=Policy(shed=shed, order="priority", batch=case.batch, lend=lend),
        lanes=[LaneSpec()] * case.lanes,
        families=[FamilySpec.uniform(case.lanes, latency)] * 2,
        tenants=[
            SimTenant(family=int(own_family), arrivals=matters, slo_ns=3 * most, priority=1),
            SimTenant(arrivals=flood, slo_ns=3 * most, queue_limit=case.queue_limit),
        ],
        horizon_ns=LAUNCHES * latency[case.largest],
    )
    first, other = run.tenants
    assert first.completed == first.offered > 0
    assert first.max_ns <= most
    assert other.met > 0
