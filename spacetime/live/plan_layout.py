"""The lanes of a session that runs a plan: their numbers, latencies and turns, and how they change.

The scheduler gets the latencies that the plan was judged by, those of the profile, so that what was
simulated is what runs. It corrects them by what launches then take.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from spacetime.errors import PlanError
from spacetime.live.placement import LaneKey, LaneLayout, buckets_of
from spacetime.models.backend import Family
from spacetime.plan.deployment import Served
from spacetime.policy import Policy
from spacetime.session.apart import alone_of
from spacetime.session.lanes import OpenLanes

DRAIN_POLL_S = 0.0005  # between two looks at a lane that still has requests


class PlanLayout:
    """The layout of one device of a plan.

    Each partition of the plan is a lane of the session. Requests are routed to lanes in proportion
    to the planned rates. Where the plan states a cycle, tenants take turns on their lane.

    current: where the plan in force lies. ladder: where plans to come lie, whose lanes are opened
    along with the first. largest: the most samples a launch is prepared for.
    """

    def __init__(
        self, current: LaneLayout, ladder: Sequence[LaneLayout], policy: Policy, *, largest: int
    ) -> None:
        self.current = current
        self.buckets = buckets_of([current, *ladder], largest)
        self._ladder = ladder
        self._policy = policy
        self._numbers: dict[LaneKey, int] = {}  # of every open lane
        self._known: set[tuple[int, int]] = set()  # (family, lane): the lane knows its latencies

    def open(self, lanes: OpenLanes) -> None:
        """Opens the lanes of the plan and of its ladder."""
        self.lanes = lanes
        for planned in (self.current, *self._ladder):
            self.prepare(planned)

    def bound_ns(self, slo_ms: float | None) -> int | None:
        """Nothing: the plan has bounded the batches."""
        return None

    def route(self, tenant: str, family: Family) -> tuple[int, list[float]]:
        """A new tenant's main lane, and its planned rate on each, in requests a second."""
        self.check_batch(tenant, family, self.current)  # before the scheduler learns anything
        self._tell([*self._members(), (tenant, family)], self.current)
        return self.shares(tenant, self.current)

    def joined(self) -> None:
        """A tenant that has come has its turns."""
        self._tell_turns(self.current)

    def lanes_of(self, family: Family) -> Iterable[int]:
        """The lanes on which the plan serves a member of the family."""
        served = [self.current.served[name] for name, other in self._members() if other is family]
        return {self.number(self.current, lane) for lanes in served for lane in lanes}

    def number(self, planned: LaneLayout, lane: int) -> int:
        """The session's number of a plan's lane."""
        return self._numbers[planned.keys[lane]]

    def numbers(self, planned: LaneLayout) -> list[int]:
        """The session's number of each of a plan's lanes, all of which are open."""
        return [self._numbers[key] for key in planned.keys]

    def shares(self, tenant: str, planned: LaneLayout) -> tuple[int, list[float]]:
        """A tenant's main lane, and its planned rate on each of the session's lanes."""
        rates_rps = [0.0] * len(self.lanes.partitions)
        for lane, rate_rps in planned.shares(tenant).items():
            rates_rps[self.number(planned, lane)] += rate_rps
        return rates_rps.index(max(rates_rps)), rates_rps

    def check(self, new: LaneLayout) -> None:
        """Raises PlanError where the tenants that are here cannot be moved to `new`."""
        for tenant in self.lanes.tenants.values():
            if tenant.name not in new.served:
                raise PlanError(
                    f"tenant {tenant.name}: the plan does not serve it here; remove it first"
                )
            self.check_batch(tenant.name, tenant.family, new)
        for key in self._missing(new):
            if why := self.lanes.backend.why_no_lane(key.units):
                raise PlanError(
                    f"lanes: {why} of {self.lanes.device.name}; open the session with this plan in "
                    "its ladder"
                )

    def check_batch(self, tenant: str, family: Family, planned: LaneLayout) -> None:
        """Raises PlanError where a planned batch is larger than the family was prepared for."""
        most = max(served.batch for served in planned.served[tenant].values())
        if self._policy.batch != "one" and family.buckets[-1] < most:
            raise PlanError(
                f"tenant {tenant}: the plan gives it batches of {most}, its model was prepared for "
                f"at most {family.buckets[-1]}; give max_batch, or batch_sizes to the planner"
            )

    def prepare(self, planned: LaneLayout) -> None:
        """Opens the lanes that are not open yet, and wakes those that rest. Raises LaneLost."""
        missing = self._missing(planned)
        self.lanes.backend.wake(self._numbers[key] for key in planned.keys if key in self._numbers)
        first = len(self.lanes.partitions)
        fresh = {key: number for number, key in enumerate(missing, first)}
        numbers = self._numbers | fresh
        # A pool goes by the number of its first process's lane, which may be open already.
        pools = [
            numbers.get(key._replace(process=0), number) if key.pooled > 1 else None
            for key, number in fresh.items()
        ]
        self.lanes.open([key.units for key in missing], pools=pools)
        self._numbers |= fresh

    def warm_up(self, new: LaneLayout) -> None:
        """Runs every tenant once at each size it will have, on threads as its lanes have them."""
        for tenant in self.lanes.tenants.values():
            for lane, served in new.served[tenant.name].items():
                largest = _limit(tenant.family.buckets, served.batch)
                self.lanes.backend.warm_up(tenant.family, tenant.member, new.units[lane], largest)

    def switch(self, new: LaneLayout) -> None:
        """Routes every tenant by the new plan; what waits goes along.

        Turns and latencies come first: a lane that requests are routed to has to know both.
        """
        self._tell_turns(new)
        self._tell(self._members(), new)
        for tenant in self.lanes.tenants.values():
            tenant.lane, rates_rps = self.shares(tenant.name, new)
            self.lanes.native.set_routes(
                tenant.number, lane=tenant.lane, lane_weights=rates_rps, move=True
            )
        self.current = new

    def drain(self, numbers: Iterable[int]) -> None:
        """Waits until these lanes have nothing left to run, and lets each rest."""
        pause = threading.Event()
        for number in numbers:
            while self.lanes.native.load(number):
                pause.wait(DRAIN_POLL_S)
            self.lanes.backend.rest(number)

    def _missing(self, planned: LaneLayout) -> list[LaneKey]:
        return [key for key in dict.fromkeys(planned.keys) if key not in self._numbers]

    def _members(self) -> list[tuple[str, Family]]:
        tenants = [*self.lanes.tenants.copy().values()]  # audits ask without the lock
        return [(tenant.name, tenant.family) for tenant in tenants]

    def _tell(self, members: Iterable[tuple[str, Family]], planned: LaneLayout) -> None:
        """Tells the scheduler how long each family's launches take on each lane, and the largest
        that was planned there."""
        native = self.lanes.native
        limits: dict[tuple[int, int], int] = {}
        for name, family in members:
            for lane, served in planned.served[name].items():
                number = self.number(planned, lane)
                for bucket in family.buckets:
                    ns = _latency_ns(served, bucket)
                    native.set_latency(family.number, number, bucket, ns)
                key = (family.number, number)
                most = 1 if alone_of(family) else _limit(family.buckets, served.batch)
                limits[key] = max(limits.get(key, 0), most)
        for (family_number, number), limit in limits.items():
            native.set_batch(family_number, number, limit)
        for family_number, number in self._known - set(limits):
            native.set_batch(family_number, number, 0)  # only what waits there already
        self._known |= set(limits)

    def _tell_turns(self, planned: LaneLayout) -> None:
        """Tells the scheduler the cycles of the plan, as far as their tenants are here."""
        if self._policy.order != "duty":
            return
        tenants = self.lanes.tenants
        for lane, number in enumerate(self.numbers(planned)):
            turns = planned.duty.get(lane, ())
            present = [(tenants[name].number, batch) for name, batch in turns if name in tenants]
            self.lanes.native.set_duty(number, present)


def _limit(buckets: Sequence[int], batch: int) -> int:
    """The smallest bucket that holds a planned batch; a planned launch is padded as well."""
    return next((bucket for bucket in buckets if bucket >= batch), buckets[-1])


def _latency_ns(served: Served, bucket: int) -> int:
    """Of the smallest planned batch that holds `bucket`, or of the largest there is."""
    holds = [batch for batch in served.latency_ns if batch >= bucket]
    return served.latency_ns[min(holds) if holds else max(served.latency_ns)]
