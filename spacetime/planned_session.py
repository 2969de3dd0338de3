"""A session laid out by a plan: its partitions are lanes, its rates the routes, its cycles turns.

The scheduler is told what the plan was judged by: the profile's latencies, so that what was
simulated is what runs. It corrects them by what launches then take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from spacetime import devices
from spacetime.core import Policy
from spacetime.deployment import Served
from spacetime.device import Device, open_device
from spacetime.errors import InvalidInput, PlanError
from spacetime.family import Family
from spacetime.placement import Placement, place
from spacetime.plan import Plan, PlanOptions, require
from spacetime.plan_simulator import own_policy
from spacetime.profile import Profiles
from spacetime.resident import ResidentFamily
from spacetime.session import Session
from spacetime.tenant import Tenant
from spacetime.workload import Workload

LEAST_BATCH = 16  # batches prepared for, also where the plan has smaller ones: plans change


class PlannedSession(Session):
    """A session whose lanes, routes, batches and turns are those of a checked plan.

    plan, workload, profiles: as a planner takes and gives them; the plan is checked under `options`
    (those it was made with). device: as Session's. gpu: which device of the plan this is, where
    there are several. policy: a preset or Policy instead of the plan's own. Tenants are added by
    name, see add(). Raises PlanError for a plan that breaks a bound, or that no session can drive.

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
        timeline: bool = False,
    ) -> None:
        require(plan, workload, profiles, devices.device(plan.device), options)
        opened = open_device(device) if isinstance(device, str) else device
        self.placement = place(plan, workload, profiles, opened, gpu)
        self.plan, self.workload, self.profiles = plan, workload, profiles
        self.options = options or PlanOptions()
        self._told: dict[tuple[int, int], dict[int, int]] = {}  # latencies by (family, lane)
        largest = max(_largest(self.placement), LEAST_BATCH)
        super().__init__(
            opened,
            policy=policy or own_policy(plan, workload),
            lanes=self.placement.units,
            max_batch=max_batch or largest,
            timeline=timeline,
        )
        if policy is None:
            self.policy_name = f"of the plan by {plan.planner}"
        self._buckets = _buckets(self.placement, max_batch or largest)

    def add(
        self, model: nn.Module, *, example_inputs: Sequence[Any], name: str | None = None,
        **options: Any,
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
            "priority": asked.priority, "weight": asked.weight,
        }  # fmt: skip
        tenant = super().add(model, example_inputs=example_inputs, name=name, **(given | options))
        self._turns()
        return tenant

    def report(self) -> dict[str, Any]:
        """Session.report(), with the plan's names of the partitions."""
        found = super().report()
        for row, lane in zip(found["partitions"], self.placement.lanes, strict=True):
            row |= {"id": lane.partition.id, "kind": self.device.kind, "process": lane.process}
        return found | {"plan": {"planner": self.plan.planner, "gpu": self.placement.gpu}}

    def explain(self) -> str:
        """Session.explain(), with where the plan lies and what was rounded."""
        lines = [f"lane {number}: {lane}" for number, lane in enumerate(self.placement.lanes)]
        return "\n".join([super().explain(), *lines, *self.placement.notes])

    def _bound_ns(self, slo_ms: float | None) -> int | None:
        return None  # the plan has bounded the batches

    def _routed(self, name: str, family: Family | ResidentFamily) -> tuple[int, list[float]]:
        for lane, served in self.placement.served[name].items():
            self._tell(name, family, lane, served)
        shares = self.placement.shares(name)
        return shares.index(max(shares)), shares

    def _tell(self, name: str, family: Family | ResidentFamily, lane: int, served: Served) -> None:
        """What launches of a family take on a lane, up to the planned batch."""
        buckets = family.buckets if self.fuses else (1,)
        limit = next((bucket for bucket in buckets if bucket >= served.batch), None)
        if limit is None and self.fuses:
            raise PlanError(
                f"tenant {name}: the plan gives it batches of {served.batch}, its model was "
                f"prepared for at most {buckets[-1]}; give max_batch, or batch_sizes to the planner"
            )
        told = self._told.setdefault((family.native, lane), {})
        for bucket in buckets:
            if limit is None or bucket <= limit:
                told[bucket] = max(told.get(bucket, 0), _latency_ns(served, bucket))
        for bucket, ns in told.items():
            self._executor.native.set_latency(family.native, lane, bucket, ns)

    def _turns(self) -> None:
        """The cycles of the plan, as far as their tenants are here."""
        for lane, turns in self.placement.duty.items():
            present = [(self.tenants[t].number, batch) for t, batch in turns if t in self.tenants]
            self._executor.native.set_duty(lane, present)


def _largest(placement: Placement) -> int:
    return max(on.batch for lanes in placement.served.values() for on in lanes.values())


def _buckets(placement: Placement, largest: int) -> list[int]:
    """Powers of two that hold every batch, and whatever the profiles measured below."""
    powers = [2**n for n in range((largest - 1).bit_length() + 1)]
    measured = {
        bucket
        for lanes in placement.served.values()
        for served in lanes.values()
        for bucket in served.latency_ns
    }
    return sorted({*powers, *measured})


def _latency_ns(served: Served, bucket: int) -> int:
    """Of the smallest planned batch that holds `bucket`, or of the largest there is."""
    holds = [batch for batch in served.latency_ns if batch >= bucket]
    return served.latency_ns[min(holds) if holds else max(served.latency_ns)]
