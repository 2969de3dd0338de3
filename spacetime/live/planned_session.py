"""A session laid out by a plan: its partitions are lanes, its rates the routes, its cycles turns.

The scheduler is told what the plan was judged by: the profile's latencies, so that what was
simulated is what runs. It corrects them by what launches then take. A running session moves to
another plan: see apply().
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from spacetime.devices import facts
from spacetime.devices.device import Device, open_device
from spacetime.errors import InvalidInput, PlanError
from spacetime.live.placement import LaneKey, Placement, buckets_of, largest_batch, place
from spacetime.models.backend import Family
from spacetime.plan import Plan, PlanOptions, require
from spacetime.plan.deployment import Served, own_policy
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.reports.counters import Counters
from spacetime.session.apart import alone_of
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.units import MS
from spacetime.workload.workload import Workload

LEAST_BATCH = 16  # batches prepared for, also where the plan has smaller ones: plans change
DRAIN_POLL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Moved:
    """What a change of plan did: lanes opened, kept and drained, and how long each step took.

    Requests are served throughout; between `prepare_ms` and `drain_ms` both plans' lanes run.
    """

    opened: int
    kept: int
    drained: int
    prepare_ms: float
    switch_ms: float
    drain_ms: float


class PlannedSession(Session):
    """A session whose lanes, routes, batches and turns are those of a checked plan.

    plan, workload, profiles: as a planner takes and gives them; the plan is checked under `options`
    (those it was made with). device: as Session's. gpu: which device of the plan this is, where
    there are several. policy: a preset or Policy instead of the plan's own. max_batch: the largest
    batch a later plan may have. ladder: plans to come, whose lanes are opened now; a device whose
    graphs are captured lane by lane moves to no others. isolation: as Session's; each process of a
    partition is then one. audit, audit_stop: as Session's. Tenants are added by name, see add().
    Raises PlanError for a plan that breaks a bound, or that no session can drive.

    >>> with PlannedSession(plan, workload, profiles, device="cpu") as session:
    ...     tenant = session.add(model, name="a", example_inputs=(x,))
    """

    def __init__(
        self,
        plan: Plan,
        workload: Workload,
        profiles: Profiles,
        *,
        device: str | Device = "auto",
        gpu: int | None = None,
        policy: str | Policy | None = None,
        options: PlanOptions | None = None,
        max_batch: int | None = None,
        ladder: Sequence[Plan] = (),
        timeline: bool = False,
        record: bool = False,
        isolation: str = "thread",
        audit: float = 0.0,
        audit_stop: bool = False,
    ) -> None:
        self.profiles, self.options = profiles, options or PlanOptions()
        for each in (plan, *ladder):
            self._check(each, workload)
        opened = open_device(device) if isinstance(device, str) else device
        self.plan, self.workload = plan, workload
        self.placement = place(plan, workload, profiles, opened, gpu)
        rungs = [place(each, workload, profiles, opened, gpu) for each in ladder]
        largest = max(map(largest_batch, (self.placement, *rungs)))
        most = max_batch or max(largest, LEAST_BATCH)
        self._own = policy is None
        super().__init__(
            opened, policy=policy or _policy(plan, workload),
            lanes=[],  # opened below, with the pools of the plan
            max_batch=most, timeline=timeline, record=record, isolation=isolation,
            audit=audit, audit_stop=audit_stop,
        )  # fmt: skip
        if policy is None:
            self.policy_name = f"of the plan by {plan.planner}"
        self._buckets = buckets_of([self.placement, *rungs], most)
        self._numbers: dict[LaneKey, int] = {}  # of every open lane
        self._told: set[tuple[int, int]] = set()  # (family, lane) that know latencies
        for placement in (self.placement, *rungs):
            self._open(placement.keys)

    def add(
        self, model: nn.Module | ExportedProgram, *, example_inputs: Sequence[Any],
        name: str | None = None, **options: Any,
    ) -> Tenant:  # fmt: skip
        """Makes `model` the workload's tenant `name`; objective, rate, priority and weight are
        the workload's unless given. See Session.add.
        """
        asked = next((each for each in self.workload.tenants if each.name == name), None)
        if asked is None or name not in self.placement.served:
            expected = f"a tenant the plan serves here: {', '.join(self.placement.served)}"
            raise InvalidInput(str(name), "name", expected, repr(name))
        given = {
            "slo_ms": asked.slo_ms, "rate_rps": asked.rate_rps,
            "priority": asked.priority, "weight": asked.weight, "batchable": asked.batchable,
        }  # fmt: skip
        tenant = super().add(model, example_inputs=example_inputs, name=name, **(given | options))
        with self._changing:
            self._turns(self.placement)
        return tenant

    def move_lane(self, lane: int, cores: Sequence[int]) -> None:
        """Not here, where the plan says which cores a lane has: raises PlanError."""
        raise PlanError(f"lane {lane}: is where the plan has it; apply() another plan")

    def apply(self, plan: Plan, workload: Workload | None = None) -> Moved:
        """Moves the running session to another plan; what was accepted is answered or dropped at
        its own deadline, as ever.

        The new lanes are opened and warmed beside the old ones, then every tenant is routed to
        them and what waits goes along, then the old ones finish what they run. `workload`: the
        same tenants at other rates, which the plan is for. Returns when the old lanes are idle;
        they stay for a plan that wants them again, without their processes if they had some.
        Raises PlanError, and nothing has changed, for a plan that is unsound, serves not all
        tenants that are here, or needs another policy, larger batches, or lanes that this device
        cannot open any more, and LaneLost where a new lane's process does not start.
        """
        load = workload or self.workload
        self._check(plan, load)
        with self._changing:
            self._executor.check_open()
            new = place(plan, load, self.profiles, self.device, self._gpu_of(plan))
            self._movable(plan, load, new)
            start = time.monotonic_ns()
            before = len(self.partitions)
            old = {self._numbers[key] for key in self.placement.keys}
            self._open(new.keys)
            lanes = {self._numbers[key] for key in new.keys}
            self._warm_up(new)
            prepared = time.monotonic_ns()
            self._switch(new)
            self.plan, self.workload, self.placement = plan, load, new
            switched = time.monotonic_ns()
            self._drain(old - lanes)
        return Moved(
            opened=len(self.partitions) - before,
            kept=len(old & lanes),
            drained=len(old - lanes),
            prepare_ms=(prepared - start) / MS,
            switch_ms=(switched - prepared) / MS,
            drain_ms=(time.monotonic_ns() - switched) / MS,
        )

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """By tenant since it was added: requests that came, ended, were answered in time.

        Those refused by a full queue came and ended.
        """
        tenants = [*self.tenants.copy().values()]  # before the counts, which then know them all
        stats = self._executor.native.stats()
        found = {}
        for tenant in tenants:
            count, refused = stats.tenants[tenant.number], stats.refused[tenant.number]
            ended = count.completed + sum(count.dropped.values()) + refused
            found[tenant.name] = (count.offered + refused, ended, count.met)
        return found

    def counters(self) -> Counters:
        """Session.counters(); a lane that the plan in force does not use is granted nothing."""
        found = super().counters()
        here = {self._numbers[key] for key in self.placement.keys}
        return replace(found, lanes=tuple(
            lane if number in here else replace(lane, granted=0)
            for number, lane in enumerate(found.lanes)
        ))  # fmt: skip

    @property
    def planned_units(self) -> int:
        """Cores or SMs of this device that the plan in force uses."""
        return self.device.size({*chain.from_iterable(self.placement.units)})

    def report(self) -> dict[str, Any]:
        """Session.report(), with the plan's names of the partitions."""
        found = super().report()
        here = {self._numbers[key]: lane for key, lane in self._named()}
        for number, row in enumerate(found["partitions"]):
            row["kind"] = self.device.kind
            if number in here:
                row |= {"id": here[number].partition.id, "process": here[number].process}
        return found | {"plan": {"planner": self.plan.planner, "gpu": self.placement.gpu}}

    def explain(self) -> str:
        """Session.explain(), with where the plan lies and what was rounded."""
        lines = [f"lane {self._numbers[key]}: {lane}" for key, lane in self._named()]
        return "\n".join([super().explain(), *lines, *self.placement.notes])

    def __enter__(self) -> PlannedSession:
        return self

    def _named(self) -> Iterable[tuple[LaneKey, Any]]:
        return zip(self.placement.keys, self.placement.lanes, strict=True)

    def _check(self, plan: Plan, workload: Workload) -> None:
        require(plan, workload, self.profiles, facts.device(plan.device), self.options)

    def _gpu_of(self, plan: Plan) -> int | None:
        return None if len(plan.gpus) == 1 else self.placement.gpu

    def _open(self, keys: Sequence[LaneKey]) -> None:
        """Opens the lanes that are not open yet, and wakes those that rest."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        self.backend.wake(self._numbers[key] for key in keys if key in self._numbers)
        self.backend.open([key.units for key in missing])
        for key in missing:
            number = len(self.partitions)
            first = self._numbers.get(key._replace(process=0), number)
            pool = first if key.pooled > 1 else None
            self._executor.add_lane(key.units, self.backend.around, pool=pool)
            self.partitions.append(key.units)
            self._numbers[key] = number

    def _bound_ns(self, slo_ms: float | None) -> int | None:
        return None  # the plan has bounded the batches

    def _routed(self, name: str, family: Family) -> tuple[int, list[float]]:
        self._batch(name, family, self.placement)  # before anything is told
        members = [(t.name, t.family) for t in self.tenants.values()]
        self._tell([*members, (name, family)], self.placement)
        return self.shares(name, self.placement)

    def shares(self, name: str, placement: Placement) -> tuple[int, list[float]]:
        """A tenant's main lane and its share of each, by the executor's numbers."""
        shares = [0.0] * len(self.partitions)
        for lane, rate in placement.shares(name).items():
            shares[self._numbers[placement.keys[lane]]] += rate
        return shares.index(max(shares)), shares

    def _lanes_of(self, family: Family) -> Iterable[int]:
        placement, members = self.placement, [*self.tenants.copy().values()]
        served = [placement.served[t.name] for t in members if t.family is family]
        return {self._numbers[placement.keys[lane]] for lanes in served for lane in lanes}

    def _batch(self, name: str, family: Family, placement: Placement) -> None:
        most = max(on.batch for on in placement.served[name].values())
        if self.fuses and family.buckets[-1] < most:
            raise PlanError(
                f"tenant {name}: the plan gives it batches of {most}, its model was prepared for "
                f"at most {family.buckets[-1]}; give max_batch, or batch_sizes to the planner"
            )

    def _tell(self, members: Iterable[tuple[str, Family]], placement: Placement) -> None:
        """What launches of each family take on each lane, and the largest that was planned."""
        native = self._executor.native
        limits: dict[tuple[int, int], int] = {}
        for name, family in members:
            for lane, served in placement.served[name].items():
                number = self._numbers[placement.keys[lane]]
                for bucket in family.buckets:
                    ns = _latency_ns(served, bucket)
                    native.set_latency(family.number, number, bucket, ns)
                key = (family.number, number)
                most = 1 if alone_of(family) else _limit(family.buckets, served.batch)
                limits[key] = max(limits.get(key, 0), most)
        for (number, lane), limit in limits.items():
            native.set_batch(number, lane, limit)
        for number, lane in self._told - set(limits):
            native.set_batch(number, lane, 0)  # only what waits there already
        self._told |= set(limits)

    def _turns(self, placement: Placement) -> None:
        """The cycles of the plan, as far as their tenants are here."""
        if self.policy.order != "duty":
            return
        for lane, key in enumerate(placement.keys):
            turns = placement.duty.get(lane, ())
            present = [(self.tenants[t].number, batch) for t, batch in turns if t in self.tenants]
            self._executor.native.set_duty(self._numbers[key], present)

    def _movable(self, plan: Plan, load: Workload, new: Placement) -> None:
        """Raises PlanError for what this session cannot become."""
        if self._own and _policy(plan, load) != self.policy:
            raise PlanError(
                f"policy: the plan by {plan.planner} needs another than this session was opened "
                "with; open a session of it"
            )
        for tenant in self.tenants.values():
            if tenant.name not in new.served:
                raise PlanError(
                    f"tenant {tenant.name}: the plan does not serve it here; remove it first"
                )
            self._batch(tenant.name, tenant.family, new)
        missing = [key for key in new.keys if key not in self._numbers]
        for key in missing:
            if why := self.backend.why_no_lane(key.units):
                raise PlanError(
                    f"lanes: {why} of {self.device.name}; open the session with this plan in its "
                    "ladder"
                )

    def _warm_up(self, new: Placement) -> None:
        """Runs every family once at each size it will have, on threads as its lanes have them."""
        for tenant in self.tenants.values():
            family = tenant.family
            for lane, served in new.served[tenant.name].items():
                largest = _limit(family.buckets, served.batch)
                self.backend.warm_up(family, tenant.member, new.units[lane], largest)

    def _switch(self, new: Placement) -> None:
        """Routes every tenant by the new plan; what waits goes along."""
        self._turns(new)
        members = [(t.name, t.family) for t in self.tenants.values()]
        self._tell(members, new)
        for tenant in self.tenants.values():
            lane, shares = self.shares(tenant.name, new)
            tenant.lane = lane
            self._executor.native.set_routes(
                tenant.number, lane=lane, lane_weights=shares, move=True
            )

    def _drain(self, lanes: Iterable[int]) -> None:
        pause = threading.Event()
        for lane in lanes:
            while self._executor.native.load(lane):
                pause.wait(DRAIN_POLL_S)
            self.backend.rest(lane)


def _policy(plan: Plan, workload: Workload) -> Policy:
    """The plan's own; by turns in any case, so that the next plan may have cycles."""
    own = own_policy(plan, workload)
    return replace(own, order="duty") if plan.policy is None else own


def _limit(buckets: Sequence[int], batch: int) -> int:
    """The smallest bucket that holds a planned batch; a planned launch is padded as well."""
    return next((bucket for bucket in buckets if bucket >= batch), buckets[-1])


def _latency_ns(served: Served, bucket: int) -> int:
    """Of the smallest planned batch that holds `bucket`, or of the largest there is."""
    holds = [batch for batch in served.latency_ns if batch >= bucket]
    return served.latency_ns[min(holds) if holds else max(served.latency_ns)]
