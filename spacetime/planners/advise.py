"""The right-sizing report: what each tenant needs alone, and whether sharing a device pays. Pure.

Sharing is what planner `spacetime` makes of the workload; not sharing is a device, or several, for
each tenant alone. All of it is at steady arrivals, by the rules of the checker.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import InfeasibleError
from spacetime.plan import Plan, Planner, PlanOptions
from spacetime.plan.demand import copies, usable
from spacetime.plan.memory import holding
from spacetime.plan.plan import PartitionPlan
from spacetime.plan.timing import busy, loads
from spacetime.planners.baselines import whole
from spacetime.planners.packing.bounds import explained
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

FORMAT = "spacetime.advice/1"


@dataclass(frozen=True, slots=True)
class Need:
    """One tenant: the smallest partitions that serve it alone, and a whole device for it alone.

    `copies` partitions of `kind` and `units`. `devices`: whole ones it would take, each busy
    `device_busy` of the time; None where no point is of a whole device, or none serves it.
    """

    tenant: str
    model: str
    rate_rps: float
    slo_ms: float
    kind: str
    units: int
    copies: int
    batch: int
    procs: int
    devices: int | None
    device_busy: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to rent. `alone_gpus`: devices if nobody shares; None where that is impossible.

    `shared_gpus` and `lower_bound_gpus`: with sharing. `idle`: devices' worth of units in
    partitions that are unused; `stranded`: in none. `limits`: how many assignments each bound
    binds. `next_cheaper`: what one device fewer would violate.
    """

    device: str
    needs: tuple[Need, ...]
    alone_gpus: int | None
    shared_gpus: int
    lower_bound_gpus: int | None
    headroom: float | None
    idle: float
    stranded: float
    limits: dict[str, int]
    next_cheaper: str

    @property
    def saved(self) -> float | None:
        """The fraction of devices that sharing saves."""
        return 1 - self.shared_gpus / self.alone_gpus if self.alone_gpus else None

    @property
    def pays(self) -> bool:
        """Whether sharing needs fewer devices, or is the only way."""
        return self.alone_gpus is None or self.shared_gpus < self.alone_gpus

    def to_json(self) -> dict[str, Any]:
        """The report as `json.dumps` takes it."""
        return {"format": FORMAT, **asdict(self), "saved": self.saved, "pays": self.pays}


def advise(
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts,
    options: PlanOptions,
    maker: Planner | None = None,
) -> tuple[Advice, Plan]:
    """The report, and the plan it speaks of: that of `maker`, planner `spacetime` by default.

    Raises InfeasibleError for a workload that the planner refuses.
    """
    made = (maker or planner("spacetime")).plan(workload, profiles, device, options)
    kept = holding(workload, profiles, device)
    needs = tuple(_need(tenant, kept, device, options) for tenant in workload.tenants)
    wholes = [need.devices for need in needs]
    reasons = explained(made, workload, profiles, device, options).reasons[len(made.reasons) :]
    told = [why.text for why in reasons]
    cheaper = f"{reasons[-1].tenant}: {told[-1]}" if told else "Nobody asks"
    parts = list(_outer(made))
    if len(parts) == 1 and parts[0].units < device.whole(parts[0].kind) and len(needs) > 1:
        cheaper = (
            f"All of it fits one partition, {parts[0].kind} {parts[0].units}: share that, and "
            "leave the rest of the device to others"
        )
    idle, used = _used(made, workload, profiles, device)
    bound = (word for text in told[:-1] for word in _binding(text))
    return Advice(
        device.name,
        needs,
        None if None in wholes else sum(n or 0 for n in wholes),
        len(made.gpus),
        made.lower_bound_gpus,
        made.headroom,
        idle,
        round(len(made.gpus) - used, 9),
        dict(Counter(bound).most_common()),
        cheaper,
    ), made


def _binding(text: str) -> Iterator[str]:
    for name in ("utilisation ceiling", "SLO", "batch fill", "rate", "memory"):
        if f"{name} binds:" in text:
            yield name


def _need(tenant: Tenant, profiles: Profiles, device: DeviceFacts, options: PlanOptions) -> Need:
    sizes: dict[tuple[str, int], list[Point]] = defaultdict(list)
    if not tenant.rate_rps:  # a place beside others, and no capacity
        least = min(usable(tenant, profiles, options), key=lambda p: (p.units, p.procs, p.batch))
        return Need(
            tenant.name,
            tenant.model,
            0.0,
            tenant.slo_ms,
            least.kind,
            least.units,
            0,
            least.batch,
            least.procs,
            0,
            0.0,
        )
    for point in usable(tenant, profiles, options):
        sizes[point.kind, point.units].append(point)
    found = []
    refused: InfeasibleError | None = None
    for (kind, units), points in sizes.items():
        try:
            number, point = copies(tenant, points, options)
        except InfeasibleError as error:
            refused = error
            continue
        found.append((number * units / device.whole(kind), number, units, point))
    if not found:
        assert refused is not None, "a point, or why none serves"
        raise refused
    _, number, units, point = min(found, key=lambda size: size[:3])
    devices, share = _whole(tenant, profiles, device, options)
    return Need(
        tenant.name,
        tenant.model,
        tenant.rate_rps,
        tenant.slo_ms,
        point.kind,
        units,
        number,
        point.batch,
        point.procs,
        devices,
        share,
    )


def _whole(
    tenant: Tenant, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> tuple[int | None, float | None]:
    try:
        number, point = copies(tenant, whole(tenant, profiles, device, options, procs=1), options)
    except InfeasibleError:
        return None, None
    return number, tenant.rate_rps / number / point.throughput_rps


def _used(
    plan: Plan, workload: Workload, profiles: Profiles, device: DeviceFacts
) -> tuple[float, float]:
    """Devices' worth of units that partitions hold unused, and that they hold."""
    models = {tenant.name: tenant.model for tenant in workload.tenants}
    idle = used = 0.0
    for part in _outer(plan):
        share = part.units / device.whole(part.kind)
        used += share
        idle += share * (1 - min(1.0, busy(part, loads(part, profiles, models))))
    return idle, used


def _outer(plan: Plan) -> Iterator[PartitionPlan]:
    return (part for gpu in plan.gpus for part in gpu.partitions if part.parent is None)
