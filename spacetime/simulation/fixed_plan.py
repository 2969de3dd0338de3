"""A plan of many devices under a workload, in virtual time, by the live scheduler.

Replications are independent draws of the arrivals. They and the plan's pieces run on threads; the
result depends on neither their number nor their order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

from spacetime.errors import UnsupportedError
from spacetime.plan import Plan
from spacetime.plan.deployment import Deployment, Piece, PlanLane, deploy, own_policy
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    NativeLane,
    NativeResult,
    NativeTenant,
    SimArrivals,
    SimInterference,
    SimNoise,
    SimTenant,
    merged,
    native_run,
)
from spacetime.units import SECOND, ns_from_ms
from spacetime.workload.workload import Workload

ENDLESS = 2**31 - 1  # requests: the deadline bounds a queue, not its length
DURATION_NS = 60 * SECOND
RANDOM = ("poisson", "gamma")  # the processes that another seed changes
Slows = Callable[[str, int, str, int], float]  # model, units, another model, its units
STEP = 0x9E3779B97F4A7C15  # between the seeds of replications


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """How a plan is simulated.

    `policy` None is the plan's own: weighted routes, full batches, turns where it has cycles.
    `rate_scale` multiplies every rate, of a trace by compressing its time. With `drops` a request
    that has not started at its deadline is dropped; without, it is answered late. `noise`: how
    launches differ from the profile (None: not). `interference(model, units, other model, its
    units)` is the factor, at least 1, by which a launch is slower beside another partition of
    its device; what several add is summed. `threads` None: one a core. `duration_ns` None:
    60 s, or the whole of a trace. Raises UnsupportedError naming the option.
    """

    policy: Policy | None = None
    duration_ns: int | None = None
    replications: int = 5
    seed: int | None = None  # None: the workload's
    rate_scale: float = 1.0
    drops: bool = True
    noise: SimNoise | None = None
    interference: Slows | None = None
    threads: int | None = None
    timeline: bool = False

    def __post_init__(self) -> None:
        for name in ("duration_ns", "replications", "rate_scale", "threads"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UnsupportedError(f"{name}: must be above 0 and finite, got {value}")

    def horizon_ns(self, workload: Workload) -> int:
        """No request arrives from here on."""
        if self.duration_ns is not None:
            return self.duration_ns
        if workload.arrivals.process != "trace":
            return DURATION_NS
        last = workload.trace[-1].time_ns if workload.trace else 0
        return round(last / self.rate_scale) + 1


@dataclass(frozen=True, slots=True)
class Replication:
    """One draw: counters by the workload's tenants and the deployment's lanes."""

    tenants: tuple[NativeTenant, ...]
    lanes: tuple[NativeLane, ...]
    pieces: tuple[NativeResult, ...]

    @property
    def attainment(self) -> float:
        """Fraction of all offered requests answered within their objective; 1 without any."""
        offered = sum(tenant.offered for tenant in self.tenants)
        return sum(tenant.met for tenant in self.tenants) / offered if offered else 1.0

    def latency_ns(self, fraction: float) -> int:
        """A percentile over all tenants' answers."""
        return merged(tenant.latency for tenant in self.tenants).percentile_ns(fraction)


@dataclass(frozen=True)
class PlanRun:
    """What simulating a plan gave; `plan_report` makes the report of it."""

    plan: Plan
    workload: Workload
    policy: Policy
    options: SimOptions
    deployment: Deployment
    pieces: tuple[Piece, ...]
    replications: tuple[Replication, ...]

    @cached_property
    def attainments(self) -> dict[str, float]:
        """By tenant: fraction of its requests answered in time, over all replications."""
        return {
            tenant.name: _attainment([each.tenants[n] for each in self.replications])
            for n, tenant in enumerate(self.workload.tenants)
        }

    @property
    def asked(self) -> dict[str, float]:
        """`attainments` of the tenants that anything was asked of."""
        return {
            tenant.name: self.attainments[tenant.name]
            for number, tenant in enumerate(self.workload.tenants)
            if any(each.tenants[number].offered for each in self.replications)
        }

    @property
    def worst(self) -> tuple[float, str] | None:
        """The least attainment of a tenant that was asked, and its name; None where none was."""
        return min(((part, name) for name, part in self.asked.items()), default=None)

    @property
    def attainment(self) -> float:
        """Fraction of all requests answered in time, over all replications."""
        return _attainment([tenant for each in self.replications for tenant in each.tenants])


def _attainment(counts: Sequence[NativeTenant]) -> float:
    offered = sum(count.offered for count in counts)
    return sum(count.met for count in counts) / offered if offered else 1.0


def simulate_plan(
    plan: Plan, workload: Workload, profiles: Profiles, options: SimOptions | None = None
) -> PlanRun:
    """Runs the plan under the workload's arrivals; nothing it serves is lost.

    A recorded or constant workload without noise is the same every time and is run once. Raises
    PlanError for a plan that does not fit workload and profiles, see `deployment.deploy`.
    """
    options = options or SimOptions()
    deployment = deploy(plan, workload, profiles)
    policy = options.policy or own_policy(plan, workload)
    setting = _Setting(
        deployment, workload, policy, options, _arrivals(workload, options.rate_scale)
    )
    pieces = deployment.pieces(devices_apart=options.interference is None)
    random = workload.arrivals.process in RANDOM or options.noise is not None
    draws = range(options.replications if random else 1)
    with ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
        results = list(pool.map(lambda job: setting.run(*job), product(draws, pieces)))
    runs = tuple(
        _assemble(deployment, pieces, results[draw * len(pieces) :][: len(pieces)])
        for draw in draws
    )
    return PlanRun(plan, workload, policy, options, deployment, pieces, runs)


@dataclass(frozen=True, slots=True)
class _Setting:
    deployment: Deployment
    workload: Workload
    policy: Policy
    options: SimOptions
    arrivals: Sequence[SimArrivals]  # by tenant

    def run(self, draw: int, piece: Piece) -> NativeResult:
        place = {lane: n for n, lane in enumerate(piece.lanes)}
        deployment, options = self.deployment, self.options
        seed = self.workload.seed if options.seed is None else options.seed
        return native_run(
            policy=self.policy,
            lanes=[_lane(deployment.lanes[n], place) for n in piece.lanes],
            families=[
                FamilySpec(latency_ns={
                    place[lane]: on.latency_ns for lane, on in deployment.served[tenant].items()
                })
                for tenant in self.families(piece)
            ],
            tenants=[
                self.tenant(number, self.families(piece)[deployment.families[number]], place)
                for number in piece.tenants
            ],
            duty=self.duty(piece, place),
            interference=self.interference(piece, place),
            noise=options.noise or SimNoise(),
            horizon_ns=options.horizon_ns(self.workload),
            seed=(seed + draw * STEP) % 2**64,
            timeline=options.timeline and draw == 0,
        )  # fmt: skip

    def families(self, piece: Piece) -> dict[int, int]:
        """The piece's families by the number of their first tenant, counted from 0."""
        firsts = dict.fromkeys(self.deployment.families[number] for number in piece.tenants)
        return {first: n for n, first in enumerate(firsts)}

    def duty(self, piece: Piece, place: Mapping[int, int]) -> dict[int, list[tuple[int, int]]]:
        if self.policy.order != "duty":
            return {}
        local = self.families(piece)
        return {
            place[lane]: [(local[tenant], batch) for tenant, batch in self.deployment.duty[lane]]
            for lane in piece.lanes
            if lane in self.deployment.duty
        }

    def interference(self, piece: Piece, place: Mapping[int, int]) -> list[SimInterference]:
        slows = self.options.interference
        if slows is None:
            return []
        lanes = self.deployment.lanes
        on: dict[int, list[tuple[int, str]]] = {lane: [] for lane in piece.lanes}
        for number, family in self.families(piece).items():
            for lane in self.deployment.served[number]:
                on[lane].append((family, self.workload.tenants[number].model))
        return [
            SimInterference(
                lane=place[lane], family=family, other=place[other], beside=beside,
                extra=slows(
                    model, lanes[lane].partition.units, neighbour, lanes[other].partition.units
                ) - 1,
            )
            for lane, other in permutations(piece.lanes, 2)
            if lanes[lane].gpu == lanes[other].gpu
            and lanes[lane].partition is not lanes[other].partition
            for family, model in on[lane]
            for beside, neighbour in on[other]
        ]  # fmt: skip

    def tenant(self, number: int, family: int, place: Mapping[int, int]) -> SimTenant:
        tenant = self.workload.tenants[number]
        on = self.deployment.served[number]
        weights = [0.0] * len(place)
        for lane, served in on.items():
            weights[place[lane]] = served.rate_rps
        return SimTenant(
            family=family,
            arrivals=self.arrivals[number],
            sizes=tenant.batch_mix,
            slo_ns=ns_from_ms(tenant.slo_ms),
            drops=self.options.drops,
            priority=tenant.priority,
            weight=tenant.weight,
            queue_limit=ENDLESS,
            lane=place[max(on, key=lambda lane: on[lane].rate_rps)],
            lane_weights=tuple(weights),
            stream=number,
        )


def _lane(lane: PlanLane, place: Mapping[int, int]) -> LaneSpec:
    return LaneSpec(
        units=lane.partition.units, pool=None if lane.pool is None else place[lane.pool]
    )


def _arrivals(workload: Workload, scale: float) -> list[SimArrivals]:
    how = workload.arrivals
    if how.process != "trace":
        return [
            SimArrivals(
                process=how.process, rate_rps=each.rate_rps / each.mean_request * scale, cv=how.cv
            )
            if each.rate_rps
            else SimArrivals.trace()  # deployed, and nobody asks
            for each in workload.tenants
        ]
    times: list[list[int]] = [[] for _ in workload.tenants]
    for arrival in workload.trace:
        times[arrival.tenant].append(round(arrival.time_ns / scale))
    return [SimArrivals.trace(*each) for each in times]


def _assemble(
    deployment: Deployment, pieces: Sequence[Piece], results: Sequence[NativeResult]
) -> Replication:
    tenants: dict[int, NativeTenant] = {}
    lanes: dict[int, NativeLane] = {}
    for piece, result in zip(pieces, results, strict=True):
        tenants.update(zip(piece.tenants, result.tenants, strict=True))
        lanes.update(zip(piece.lanes, result.lanes, strict=True))
    return Replication(
        tuple(tenants[n] for n in range(len(deployment.served))),
        tuple(lanes[n] for n in range(len(deployment.lanes))),
        tuple(results),
    )
