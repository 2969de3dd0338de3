"""A session that runs a plan: the plan's partitions are its lanes, the plan's rates its routes, and
the plan's cycles the turns of its tenants.

What follows from the plan is decided by `plan_layout.py`. A running session moves to another plan:
see apply().
"""

from __future__ import annotations

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
from spacetime.live.placement import LaneLayout, laid_on, largest_batch
from spacetime.live.plan_layout import PlanLayout
from spacetime.plan import Plan, PlanOptions, require
from spacetime.plan.deployment import PlanLane, own_policy
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.reports.counters import Counters
from spacetime.session.arguments import policy_of, whole
from spacetime.session.layout import BUCKETS
from spacetime.session.session import Session
from spacetime.session.tenant import Tenant
from spacetime.units import MS
from spacetime.workload.workload import Workload

LEAST_BATCH = 16  # models are prepared for it even if the plan's batches are smaller: plans change


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

    plan, workload, profiles: as a planner takes and gives them.
    device: as Session's.
    gpu: which device of the plan this is, where the plan has several.
    policy: a preset's name or a Policy, instead of the plan's own.
    options: those that the plan was made with; it is checked under them.
    max_batch: the largest batch that a later plan may have, in samples.
    ladder: plans to come, whose lanes are opened now. A device with captured graphs moves to no
    other plans, for a graph is captured on every lane when its model is added.
    isolation: as Session's; each process of a partition is then a process of its own.
    timeline, record, audit, audit_stop: as Session's.
    Tenants are added by name, see add(). Raises PlanError for a plan that breaks a bound, or that
    no session can drive, and what Session raises.

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
        for checked in (plan, *ladder):
            self._check(checked, workload)
        opened = open_device(device) if isinstance(device, str) else device
        self.plan, self.workload = plan, workload
        first, *rungs = (laid_on(p, workload, profiles, opened, gpu) for p in (plan, *ladder))
        largest = max(map(largest_batch, (first, *rungs)))
        most = whole("-", "max_batch", max_batch or max(largest, LEAST_BATCH), 1, BUCKETS[-1])
        self._own = policy is None
        in_force = policy_of(policy or _policy(plan, workload))
        self.layout: PlanLayout = PlanLayout(first, rungs, in_force, largest=most)
        super().__init__(
            opened,
            policy=policy or in_force,
            layout=self.layout,
            timeline=timeline,
            record=record,
            isolation=isolation,
            audit=audit,
            audit_stop=audit_stop,
        )
        if policy is None:
            self.policy_name = f"of the plan by {plan.planner}"

    @property
    def placement(self) -> LaneLayout:
        """Where the plan in force lies on the device."""
        return self.layout.current

    def add(
        self,
        model: nn.Module | ExportedProgram,
        *,
        example_inputs: Sequence[Any],
        name: str | None = None,
        **options: Any,
    ) -> Tenant:
        """Makes `model` the workload's tenant `name`; objective, rate, priority and weight are
        the workload's unless given. See Session.add.
        """
        declared = next((t for t in self.workload.tenants if t.name == name), None)
        if declared is None or name not in self.placement.served:
            expected = f"a tenant the plan serves here: {', '.join(self.placement.served)}"
            raise InvalidInput(str(name), "name", expected, repr(name))
        defaults = {
            field: getattr(declared, field)
            for field in ("slo_ms", "rate_rps", "priority", "weight", "batchable")
        }
        return super().add(model, example_inputs=example_inputs, name=name, **(defaults | options))

    def move_lane(self, lane: int, cores: Sequence[int]) -> None:
        """Raises PlanError: the plan says which cores a lane has."""
        raise PlanError(f"lane {lane}: is where the plan has it; apply() another plan")

    def apply(self, plan: Plan, workload: Workload | None = None) -> Moved:
        """Moves the running session to another plan. Requests that were accepted are answered, or
        dropped at their own deadlines, as ever.

        The new lanes are opened and warmed beside the old ones. Then every tenant is routed to
        them, along with its requests that wait. Then the old lanes finish what they run, and the
        call returns. Old lanes stay for a plan that uses them again; their processes, if they had
        some, end. workload: the same tenants at the rates that the plan is for; None: as before.

        Raises PlanError for a plan that is unsound, that does not serve every tenant that is here,
        or that needs another policy, larger batches, or lanes that this device cannot open any
        more; and LaneLost where a new lane's process does not start. Then nothing has changed.
        """
        load = workload or self.workload
        self._check(plan, load)
        layout = self.layout
        with layout.lanes.changing():
            new = laid_on(plan, load, self.profiles, self.device, self._gpu_of(plan))
            self._check_policy(plan, load)
            layout.check(new)  # after it nothing is refused: only a process may fail to start
            start = time.monotonic_ns()
            open_before = len(self.partitions)
            old = {*layout.numbers(layout.current)}
            # Opened and warmed while the old lanes serve, so that no request waits for either.
            layout.prepare(new)
            layout.warm_up(new)
            prepared = time.monotonic_ns()
            layout.switch(new)
            self.plan, self.workload = plan, load
            switched = time.monotonic_ns()
            # Last: nothing is routed to the old lanes any more, so what they hold only shrinks.
            lanes = {*layout.numbers(new)}
            layout.drain(old - lanes)
        return Moved(
            opened=len(self.partitions) - open_before,
            kept=len(old & lanes),
            drained=len(old - lanes),
            prepare_ms=(prepared - start) / MS,
            switch_ms=(switched - prepared) / MS,
            drain_ms=(time.monotonic_ns() - switched) / MS,
        )

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Of each tenant since it was added, by its name: how many requests came, how many have
        ended, and how many were answered in time. A request that a full queue refused counts as
        one that came and has ended."""
        tenants = [*self.tenants.copy().values()]  # before the counts, which then know them all
        stats = self.layout.lanes.native.stats()
        counts = {}
        for tenant in tenants:
            count, refused = stats.tenants[tenant.number], stats.refused[tenant.number]
            ended = count.completed + sum(count.dropped.values()) + refused
            counts[tenant.name] = (count.offered + refused, ended, count.met)
        return counts

    def counters(self) -> Counters:
        """Session.counters(); a lane that the plan in force does not use is granted nothing."""
        sums = super().counters()
        here = {*self.layout.numbers(self.placement)}
        return replace(
            sums,
            lanes=tuple(
                lane if number in here else replace(lane, granted=0)
                for number, lane in enumerate(sums.lanes)
            ),
        )

    @property
    def planned_units(self) -> int:
        """Cores or SMs of this device that the plan in force uses."""
        return self.device.size({*chain.from_iterable(self.placement.units)})

    def report(self) -> dict[str, Any]:
        """Session.report(), with the plan's names of the partitions."""
        report = super().report()
        here = dict(self._lanes())
        for number, row in enumerate(report["partitions"]):
            row["kind"] = self.device.kind
            if number in here:
                row |= {"id": here[number].partition.id, "process": here[number].process}
        return report | {"plan": {"planner": self.plan.planner, "gpu": self.placement.gpu}}

    def explain(self) -> str:
        """Session.explain(), with where the plan lies and what was rounded."""
        lines = [f"lane {number}: {lane}" for number, lane in self._lanes()]
        return "\n".join([super().explain(), *lines, *self.placement.notes])

    def __enter__(self) -> PlannedSession:
        return self

    def shares(self, tenant: str) -> list[float]:
        """A tenant's planned rate on each lane of the session, in requests a second."""
        return self.layout.shares(tenant, self.placement)[1]

    def _lanes(self) -> Iterable[tuple[int, PlanLane]]:
        """The plan's lanes, each with its number in the session."""
        current = self.placement
        return zip(self.layout.numbers(current), current.lanes, strict=True)

    def _check(self, plan: Plan, workload: Workload) -> None:
        require(plan, workload, self.profiles, facts.device(plan.device), self.options)

    def _gpu_of(self, plan: Plan) -> int | None:
        return None if len(plan.gpus) == 1 else self.placement.gpu

    def _check_policy(self, plan: Plan, load: Workload) -> None:
        """Raises PlanError for a plan that needs another policy than the session has."""
        if self._own and _policy(plan, load) != self.policy:
            raise PlanError(
                f"policy: the plan by {plan.planner} needs another than this session was opened "
                "with; open a session of it"
            )


def _policy(plan: Plan, workload: Workload) -> Policy:
    """The plan's own; by turns in any case, so that the next plan may have cycles."""
    own = own_policy(plan, workload)
    return replace(own, order="duty") if plan.policy is None else own
