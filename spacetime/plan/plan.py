"""What a planner returns: which tenant runs where, frozen, and the same in JSON. Pure.

A *device of the plan* (`GpuPlan`) holds partitions; a partition holds assignments. How the tenants
of one partition share it follows from its fields, and `timing` has the bound of each:

* `fused`: tenants of one model, whose requests share launches of up to `batch` on all processes;
* one assignment: it has the partition's `procs` processes to itself;
* several with `duty_ms`: they take turns in a fixed cycle of that length, a batch each;
* several, `procs` = 1, no `duty_ms`: the device slices time between their processes;
* several, `procs` > 1: one process an assignment, running side by side.

An assignment of rate 0 has a place and no capacity: its requests run when the others' leave room,
so it is none of the several above, and no bound counts it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from spacetime.policy import PRESETS
from spacetime.profiles.profile import KINDS

FORMAT = "spacetime.plan/1"
MOST = 2**31 - 1  # of any number of units, processes or devices


def _one_of(names: Iterable[str]) -> Meta:
    allowed = "|".join(map(re.escape, names))
    return Meta(pattern=rf"\A({allowed})\Z", description=f"one of {', '.join(names)}")


# What a plan's file is held to, `plan_json` reads it; a plan made in Python is `check`'s to judge.
Text = Annotated[str, Meta(min_length=1, description="a text that is not empty")]
Kind = Annotated[str, _one_of(KINDS)]
Preset = Annotated[str, _one_of(PRESETS)]
Whole = Annotated[int, Meta(ge=0, le=MOST, description="a whole number from 0")]
FromOne = Annotated[int, Meta(ge=1, le=MOST, description="a whole number from 1")]
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max, description="a number from 0")]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A tenant's part of one partition: `rate_rps` of its requests, in batches of `batch`.

    `latency_ms` is the promised worst case from arrival to answer at steady arrivals: waiting for
    the batch to fill, for other tenants' turns, and its own launch.
    """

    tenant: Text
    batch: FromOne
    rate_rps: Amount
    latency_ms: Amount
    duty_ms: Amount | None = None

    @property
    def idle(self) -> bool:
        """Whether it is served at best effort: no rate is planned for it."""
        return self.rate_rps == 0


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """A bounded part of one device; `start` is a MIG instance's first memory slice.

    `parent` is the id of the partition this one nests in, or None. `units` are the kind's own:
    compute slices, percent of the device, SMs or cores. `memory_mib`: what its processes need of
    the device's memory, where the profile says; the checker works it out anew.
    """

    id: Text
    kind: Kind
    units: FromOne
    tenants: tuple[Assignment, ...]
    start: Whole | None = None
    procs: FromOne = 1
    parent: Text | None = None
    fused: bool = False
    memory_mib: Amount | None = None

    @property
    def sharers(self) -> tuple[Assignment, ...]:
        """The assignments capacity is planned for; who shares launches does so at any rate."""
        return tuple(each for each in self.tenants if self.fused or not each.idle)

    @property
    def rate_rps(self) -> float:
        """Requests a second over all its tenants."""
        return sum(assignment.rate_rps for assignment in self.tenants)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """One device of the plan, by number, and its partitions."""

    id: Whole
    partitions: tuple[PartitionPlan, ...]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a tenant got what it got: a choice the planner made, or the bound that forced it."""

    tenant: Text
    text: Text


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen assignment of tenants to partitions of devices of one kind.

    `lower_bound_gpus` is a proven least number of devices, where one is known. `headroom` is by
    how much every rate could grow at once, as a fraction, before some partition would be busy all
    the time (0.25 = a quarter more). `policy` is the run-time preset the plan was made for, None
    for its own routes, batches and cycles.
    """

    planner: Text
    device: Text
    gpus: tuple[GpuPlan, ...]
    lower_bound_gpus: Whole | None = None
    headroom: Amount | None = None
    reasons: tuple[Reason, ...] = ()
    policy: Preset | None = None

    def __iter__(self) -> Iterator[tuple[GpuPlan, PartitionPlan, Assignment]]:
        """Every assignment with its partition and device."""
        for gpu in self.gpus:
            for partition in gpu.partitions:
                for assignment in partition.tenants:
                    yield gpu, partition, assignment

    def without_idle(self) -> Plan:
        """The plan without assignments of rate 0, and what would be empty then."""
        gpus = []
        for gpu in self.gpus:
            parts = tuple(
                replace(part, tenants=part.sharers) if part.sharers else part
                for part in gpu.partitions
                if part.sharers or not part.tenants
            )
            if any(part.tenants for part in parts):
                gpus.append(replace(gpu, partitions=parts))
        return replace(self, gpus=tuple(gpus))

    def companions(self) -> dict[str, set[frozenset[str]]]:
        """Of each tenant the sets of tenants, itself among them, whose launches it shares."""
        found: dict[str, set[frozenset[str]]] = {}
        for _, part, each in self:
            names = [other.tenant for other in part.tenants] if part.fused else [each.tenant]
            found.setdefault(each.tenant, set()).add(frozenset(names))
        return found

    def routes(self, tenant: str) -> dict[str, float]:
        """The share of a tenant's requests each of its partitions gets; the shares sum to 1.

        Of a tenant that no rate is planned for, each gets the same. Raises KeyError for a tenant
        the plan does not serve.
        """
        rates: dict[str, float] = {}
        for _, partition, assignment in self:
            if assignment.tenant == tenant:
                rates[partition.id] = rates.get(partition.id, 0.0) + assignment.rate_rps
        if not rates:
            raise KeyError(tenant)
        if not any(rates.values()):
            return dict.fromkeys(rates, 1 / len(rates))
        return {place: rate / sum(rates.values()) for place, rate in rates.items()}

    def explain(self) -> str:
        """For each tenant its partitions, batches and rates, and why; one line each."""
        lines = [
            f"{assignment.tenant}: {assignment.rate_rps:.4g} req/s on {partition.id} ("
            f"{partition.kind} {partition.units} of gpu {gpu.id}, {partition.procs} procs) in "
            f"batches of {assignment.batch}, within {assignment.latency_ms:.4g} ms"
            for gpu, partition, assignment in self
        ]
        return "\n".join(sorted([*lines, *(f"{why.tenant}: {why.text}" for why in self.reasons)]))
