"""A simulated plan that another replaces while requests keep coming: lanes open, route and drain.

The same order of steps as beside a running session (`plan_moves`), in virtual time. Lanes of a
closed partition serve the next one of the same size, so that many moves cost no more than few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spacetime.errors import PlanError, UnsupportedError
from spacetime.plan import Plan
from spacetime.plan.deployment import Deployment, PlanLane, Served, deploy
from spacetime.plan.moves import Move
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.simulation.simulator import (
    FamilySpec,
    LaneSpec,
    SimArrivals,
    SimSpec,
    SimTenant,
    Stepped,
    native_spec,
)
from spacetime.units import ns_from_ms
from spacetime.workload.workload import Workload

ENDLESS = 2**31 - 1  # requests: the deadline bounds a queue, not its length
NOWHERE = 0  # a lane that serves nobody: tenants exist before their plan's lanes do
Group = tuple[int, ...]  # lanes of one partition, by process


class StagedPlan:
    """A plan under arrivals whose rates are set by `run.set_rate`, and which moves can replace.

    Every tenant starts with rate 0. `run` is the simulation; `plan` the one requests are routed by.
    Raises PlanError for a plan that does not fit workload and profiles, UnsupportedError for what
    cannot change its rate (recorded arrivals, requests that are batches) and for fused partitions.
    """

    def __init__(
        self, plan: Plan, workload: Workload, profiles: Profiles, policy: Policy, *,
        horizon_ns: int, seed: int,
    ) -> None:  # fmt: skip
        if workload.arrivals.process == "trace" or any(t.batch_mix for t in workload.tenants):
            raise UnsupportedError(
                "workload: a controller is simulated with drawn arrivals of single inputs"
            )
        self.plan = plan
        self._workload, self._profiles, self._policy = workload, profiles, policy
        self._buckets = [_buckets(number, plan, workload, profiles)
                         for number in range(len(workload.tenants))]  # fmt: skip
        self.run = Stepped(self._spec(horizon_ns, seed))
        self._groups: dict[str, Group] = {}  # by partition
        self._free: dict[tuple[str, int, int], list[Group]] = {}
        self._sizes: dict[Group, tuple[str, int, int]] = {}
        self._draining: list[Group] = []
        found = self._deployed(plan)
        self._open(found, {lane.partition.id for lane in found.lanes})
        self._route(found, range(len(workload.tenants)))
        for family in range(len(workload.tenants)):
            self.run.set_batch(family, NOWHERE, 0)
        self.run.close_lane(NOWHERE)

    def open(self, move: Move) -> None:
        """The move's shadow partitions can serve from now on; nothing is routed to them yet."""
        self._open(self._deployed(move.new), set(move.opens))

    def route(self, move: Move) -> None:
        """Arrivals follow the new plan; what it closes drains."""
        names = [tenant.name for tenant in self._workload.tenants]
        found = self._deployed(move.new)
        self._route(found, [names.index(name) for name in move.routes])
        self._draining += [self._groups.pop(each) for each in move.closes]
        self.plan = move.new

    def drained(self) -> bool:
        """Closes what has drained. Whether that is all there was to drain."""
        done = [each for each in self._draining if not any(map(self.run.load, each))]
        for group in done:
            self._draining.remove(group)
            self._free.setdefault(self._sizes[group], []).append(group)
            for lane in group:
                for family in range(len(self._buckets)):
                    self.run.set_batch(family, lane, 0)
                if self._policy.order == "duty":
                    self.run.set_duty(lane, [])
        return not self._draining

    def _deployed(self, plan: Plan) -> Deployment:
        """Raises UnsupportedError for tenants that share launches: families are fixed at the start,
        and a later plan would fuse others."""
        for gpu in plan.gpus:
            for part in gpu.partitions:
                if part.fused:
                    raise UnsupportedError(
                        f"{part.id}: tenants that share launches are not simulated under a "
                        "controller; plan from profiles without the column tenants"
                    )
        return deploy(plan, self._workload, self._profiles)

    def _open(self, found: Deployment, parts: set[str]) -> None:
        for lane in found.lanes:
            if lane.partition.id in parts and lane.partition.id not in self._groups:
                count = sum(each.partition is lane.partition for each in found.lanes)
                self._groups[lane.partition.id] = self._group(lane, count)
        for tenant, on in enumerate(found.served):
            for number, served in on.items():
                if found.lanes[number].partition.id in parts:
                    self._tell(tenant, self._lane(found.lanes[number]), served)

    def _group(self, lane: PlanLane, count: int) -> Group:
        part = lane.partition
        key = (part.kind, part.units, count if lane.pool is not None else -count)
        if free := self._free.get(key):
            return free.pop()
        pool = None if lane.pool is None else len(self.run.lanes)
        made = tuple(self.run.add_lane(units=part.units, pool=pool) for _ in range(count))
        self._sizes[made] = key
        return made

    def _tell(self, tenant: int, lane: int, served: Served) -> None:
        """Latencies and the largest batch of a tenant on a lane."""
        buckets = self._buckets[tenant]
        most = max((each for each in buckets if each <= served.batch), default=buckets[0])
        for bucket in buckets:
            if bucket <= most:
                self.run.set_latency(tenant, lane, bucket, _latency(served.latency_ns, bucket))
        self.run.set_batch(tenant, lane, most)

    def _route(self, found: Deployment, tenants: Iterable[int]) -> None:
        for tenant in tenants:
            weights: dict[int, float] = {}
            for number, served in found.served[tenant].items():
                lane = self._lane(found.lanes[number])
                weights[lane] = served.rate_rps
                self._tell(tenant, lane, served)
            row = [weights.get(lane, 0.0) for lane in range(max(weights) + 1)]
            self.run.set_routes(tenant, lane=max(weights, key=weights.__getitem__),
                                lane_weights=row)  # fmt: skip
        if self._policy.order == "duty":
            for number, each in enumerate(found.lanes):
                self.run.set_duty(self._lane(each), list(found.duty.get(number, ())))

    def _lane(self, lane: PlanLane) -> int:
        return self._groups[lane.partition.id][lane.process]

    def _spec(self, horizon_ns: int, seed: int) -> SimSpec:
        how = self._workload.arrivals
        return native_spec(
            policy=self._policy,
            lanes=[LaneSpec()],
            families=[
                FamilySpec(latency_ns={NOWHERE: dict.fromkeys(buckets, 1)})
                for buckets in self._buckets
            ],
            tenants=[
                SimTenant(
                    family=number,
                    arrivals=SimArrivals(process=how.process, cv=how.cv),
                    slo_ns=ns_from_ms(tenant.slo_ms),
                    priority=tenant.priority,
                    weight=tenant.weight,
                    queue_limit=ENDLESS,
                    lane=NOWHERE,
                )
                for number, tenant in enumerate(self._workload.tenants)
            ],
            horizon_ns=horizon_ns,
            seed=seed,
        )


def _buckets(number: int, plan: Plan, workload: Workload, profiles: Profiles) -> list[int]:
    """Every batch that a plan may come to name."""
    tenant = workload.tenants[number]
    named = {each.batch for _, _, each in plan if each.tenant == tenant.name}
    found = {point.batch for point in profiles.of(tenant.model)} | named | set(tenant.batch_sizes)
    if not found:
        raise PlanError(f"tenant {tenant.name}: the profiles have no point of {tenant.model}")
    return sorted(found)


def _latency(known: Mapping[int, int], bucket: int) -> int:
    """Of the next larger batch that has one."""
    return known[min((each for each in known if each >= bucket), default=max(known))]
