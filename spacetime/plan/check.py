"""Judges any plan of any planner, from the profiles alone: it believes nothing a plan says.

Each violation is one line naming partition or tenant and the bound that is broken. The bounds of
latency are those of `timing`, the same for every planner.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spacetime.devices import facts, mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import PlanError, UnsupportedError
from spacetime.plan.memory import excesses, partition_mib
from spacetime.plan.neighbours import slower
from spacetime.plan.options import PlanOptions
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan
from spacetime.plan.timing import Load, busy, loads
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Tenant, Workload

if TYPE_CHECKING:  # it needs numpy, which help and plans without such a model do not
    from spacetime.profiles.interference import Crowd

NESTS = {("mps", "mig"), ("sm", "mig")}  # (inner, outer)
MPS_CLIENTS = 48  # of one device, up to CUDA 13.0 (60 later); a MIG instance takes its share
TOLERANCE = 1e-6  # relative: what sums of rounded rates may be off


@dataclass(frozen=True, slots=True)
class Violation:
    """What a plan breaks: `where` is a partition, tenant or device; `bound` a word to test for."""

    where: str
    bound: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.bound}: {self.text}"


def check_plan(
    plan: Plan,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts | None = None,
    options: PlanOptions | None = None,
    *,
    interference: Crowd | None = None,
) -> tuple[Violation, ...]:
    """Everything that the plan breaks, a `Violation` each; empty for a sound plan.

    Without `device` the plan is held to the facts of the device that `profiles` are of. `options`
    are those that the plan was made with. With `interference` a launch takes longer beside the
    other partitions of its device. Raises UnsupportedError for a device whose facts are unknown.
    """
    device, options = device or facts.device(profiles.device), options or PlanOptions()
    tenants = {tenant.name: tenant for tenant in workload.tenants}
    factors = _factors(plan, tenants, interference)
    return (
        *_identity(plan, profiles, device, options),
        *(broken for gpu in plan.gpus for broken in _geometry(gpu, device)),
        *(
            broken
            for gpu in plan.gpus
            for partition in gpu.partitions
            for broken in _partition(
                partition, tenants, profiles, options, factors.get(partition.id, {})
            )
        ),
        *_memory(plan, tenants, profiles, device),
        *_families(plan),
        *_rates(plan, workload),
        *_requests(plan, tenants),
    )


def require(
    plan: Plan,
    workload: Workload,
    profiles: Profiles,
    device: DeviceFacts | None = None,
    options: PlanOptions | None = None,
    *,
    interference: Crowd | None = None,
) -> Plan:
    """The plan itself, if `check_plan` finds it sound. Raises PlanError with the first defect."""
    if broken := check_plan(plan, workload, profiles, device, options, interference=interference):
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise PlanError(f"{plan.planner}: {broken[0]}{more}")
    return plan


def _factors(
    plan: Plan, tenants: dict[str, Tenant], interference: Crowd | None
) -> dict[str, dict[str, float]]:
    """How much slower each tenant is than alone, by partition; empty where a tenant is unknown.

    Unknown tenants are a violation of their own, see `_partition`.
    """
    models = {name: tenant.model for name, tenant in tenants.items()}
    if interference is None or any(each.tenant not in models for _, _, each in plan):
        return {}
    return {
        part: by_tenant
        for gpu in plan.gpus
        for part, by_tenant in slower(gpu, models, interference).items()
    }


def _identity(
    plan: Plan, profiles: Profiles, device: DeviceFacts, options: PlanOptions
) -> Iterator[Violation]:
    for name, other in (("profiles", profiles.device), ("device", device.name)):
        if plan.device != other:
            yield Violation("plan", "device", f"is for {plan.device}, the {name} is {other}")
    if options.gpus is not None and len(plan.gpus) > options.gpus:
        yield Violation("plan", "gpus", f"uses {len(plan.gpus)}, there are {options.gpus}")
    if (plan.lower_bound_gpus or 0) > len(plan.gpus):
        yield Violation("plan", "gpus", f"uses fewer than its bound {plan.lower_bound_gpus}")
    for number in _repeated(gpu.id for gpu in plan.gpus):
        yield Violation(f"gpu {number}", "id", "is given twice")
    for number in _repeated(part.id for gpu in plan.gpus for part in gpu.partitions):
        yield Violation(f"{number}", "id", "is given twice")


def _repeated(names: Iterable[int | str]) -> list[int | str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _geometry(gpu: GpuPlan, device: DeviceFacts) -> Iterator[Violation]:
    """Units fit, MIG placements are legal, kinds nest legally."""
    outer = [part for part in gpu.partitions if part.parent is None]
    kinds = sorted({part.kind for part in outer})
    if len(kinds) > 1:
        yield Violation(
            f"gpu {gpu.id}", "kind", f"{' and '.join(kinds)} do not share a device; nest them"
        )
    for kind in kinds:
        same = [part for part in outer if part.kind == kind]
        yield from _fits(f"gpu {gpu.id}", kind, same, device)
    yield from _clients(gpu, device.geometry.compute)
    yield from _nesting(gpu, device)


def _fits(
    where: str, kind: str, parts: list[PartitionPlan], device: DeviceFacts
) -> Iterator[Violation]:
    try:
        whole = device.whole(kind)
    except UnsupportedError as error:
        yield Violation(where, "kind", str(error))
        return
    if kind == "mig":
        yield from _mig_fits(where, parts, device.geometry)
    elif (total := sum(part.units for part in parts)) > whole:
        yield Violation(where, "units", f"{total} of {kind}, the device has {whole}")


def _clients(gpu: GpuPlan, slices: int) -> Iterator[Violation]:
    """Processes side by side are clients of an MPS server, which takes only so many."""
    beside = [p for p in gpu.partitions if p.kind == "mps" and p.parent is None]
    if (clients := sum(part.procs for part in beside)) > MPS_CLIENTS:
        text = f"{clients} processes, an MPS server takes {MPS_CLIENTS}"
        yield Violation(f"gpu {gpu.id}", "clients", text)
    for outer in (part for part in gpu.partitions if part.kind == "mig"):
        inner = [part for part in gpu.partitions if part.parent == outer.id] or [outer]
        most = max(1, MPS_CLIENTS * outer.units // slices)
        if (clients := sum(part.procs for part in inner)) > most:
            text = f"{clients} processes, MPS in {outer.units} slices takes {most}"
            yield Violation(outer.id, "clients", text)


def _mig_fits(
    where: str, parts: list[PartitionPlan], geometry: mig.MigGeometry
) -> Iterator[Violation]:
    placed = []
    for part in parts:
        placement = mig.Placement(part.units, -1 if part.start is None else part.start)
        if mig.is_legal(placement, geometry):
            placed.append(placement)
        else:
            yield Violation(
                part.id, "placement", f"{part.units} slices cannot start at {part.start}"
            )
    if not mig.fits(placed, geometry):
        shown = ", ".join(f"{size}@{start}" for size, start in placed)
        text = f"{shown} overlap or exceed {geometry.compute} compute slices"
        yield Violation(where, "placement", text)


def _nesting(gpu: GpuPlan, device: DeviceFacts) -> Iterator[Violation]:
    by_id = {part.id: part for part in gpu.partitions}
    inside: dict[str, list[PartitionPlan]] = defaultdict(list)
    for part in gpu.partitions:
        if part.parent is None:
            continue
        outer = by_id.get(part.parent)
        if outer is None:
            yield Violation(part.id, "nesting", f"{part.parent} is not on gpu {gpu.id}")
        elif (part.kind, outer.kind) not in NESTS or outer.parent is not None:
            yield Violation(part.id, "nesting", f"{part.kind} does not nest in {outer.kind}")
        else:
            inside[outer.id].append(part)
    for name, parts in inside.items():
        if by_id[name].tenants:
            yield Violation(name, "nesting", "holds partitions and tenants; it may hold one")
        for kind in sorted({part.kind for part in parts}):
            total = sum(part.units for part in parts if part.kind == kind)
            room = 100 if kind == "mps" else device.mig_profile(by_id[name].units).sms
            if total > room:
                yield Violation(name, "units", f"{total} of {kind} inside, there are {room}")


def _partition(
    partition: PartitionPlan,
    tenants: dict[str, Tenant],
    profiles: Profiles,
    options: PlanOptions,
    slowed: dict[str, float],
) -> Iterator[Violation]:
    unknown = [each.tenant for each in partition.tenants if each.tenant not in tenants]
    for name in unknown:
        yield Violation(partition.id, "tenant", f"{name} is not in the workload")
    if unknown:
        return
    models = {each.tenant: tenants[each.tenant].model for each in partition.tenants}
    if partition.procs > options.max_procs:
        yield Violation(
            partition.id, "procs", f"runs {partition.procs}, the most is {options.max_procs}"
        )
    yield from _fused(partition, models) if partition.fused else _sharing(partition)
    largest = {each.tenant: tenants[each.tenant].largest_request for each in partition.tenants}
    found = loads(partition, profiles, models, turns=options.turns, largest=largest, slower=slowed)
    for each, load in zip(partition.tenants, found, strict=True):
        if load is None:
            yield Violation(
                partition.id, "profile",
                f"no point of {models[each.tenant]} covers batch {each.batch} with "
                f"{_of_tenants(partition)}{partition.procs} procs on "
                f"{partition.kind} {partition.units}"
                + (" inside another partition" if partition.parent else ""),
            )  # fmt: skip
        else:
            yield from _assignment(partition, each, load, tenants[each.tenant])
    yield from _utilisation(partition, found, options)


def _fused(partition: PartitionPlan, models: dict[str, str]) -> Iterator[Violation]:
    if len(kinds := sorted(set(models.values()))) > 1:
        yield Violation(partition.id, "family", f"{' and '.join(kinds)} do not share launches")
    if len({each.batch for each in partition.tenants}) > 1:
        yield Violation(partition.id, "batch", "its tenants share launches but state several")
    if any(each.duty_ms is not None for each in partition.tenants):
        yield Violation(partition.id, "duty", "tenants that share launches take no turns")
    for name in _repeated(each.tenant for each in partition.tenants):
        yield Violation(partition.id, "tenant", f"{name} is given twice")


def _families(plan: Plan) -> Iterator[Violation]:
    """Who shares launches shares all of them: the scheduler knows a family, or it does not."""
    for name, sets in plan.companions().items():
        if len(sets) > 1:
            yield Violation(name, "family", "shares launches with others in some partitions only")


def _of_tenants(partition: PartitionPlan) -> str:
    return f"{len(partition.tenants)} tenants and " if partition.fused else ""


def _sharing(partition: PartitionPlan) -> Iterator[Violation]:
    sharers, cycles = len(partition.sharers), {each.duty_ms for each in partition.sharers}
    if cycles <= {None}:
        if partition.procs > 1 and sharers > partition.procs:
            yield Violation(
                partition.id, "procs", f"{sharers} tenants share {partition.procs} processes"
            )
    elif len(cycles) > 1:
        yield Violation(partition.id, "duty", "its tenants state different cycles")
    elif partition.procs > 1:
        yield Violation(partition.id, "duty", "a cycle needs procs 1: its tenants take turns")


def _assignment(
    partition: PartitionPlan, each: Assignment, load: Load, tenant: Tenant
) -> Iterator[Violation]:
    """What one tenant's part of a partition breaks: its rate, batch, objective and promise."""
    where = f"{each.tenant} on {partition.id}"
    # NaN is above nothing, so it is refused here; rate 0 is only for a tenant nobody asks.
    if not each.rate_rps > 0 and not (each.idle and tenant.rate_rps == 0):
        yield Violation(where, "rate", f"must be above 0, is {each.rate_rps:g}")
    if tenant.batch_sizes and each.batch not in tenant.batch_sizes:
        yield Violation(
            where, "batch", f"{each.batch} is none of {', '.join(map(str, tenant.batch_sizes))}"
        )
    # `latency` names a launch that is too slow by itself, which no smaller rate would mend; `fill`
    # one that waits too long for its batch to fill, or for the turns of others.
    if not each.idle and _above(load.worst_ms, tenant.slo_ms):
        bound = "latency" if load.point.latency_ms > tenant.slo_ms else "fill"
        yield Violation(
            where, bound,
            f"batches of {each.batch} at {each.rate_rps:.4g} req/s are answered within "
            f"{load.worst_ms:.4g} ms, the objective is {tenant.slo_ms:g} ms",
        )  # fmt: skip
    # An idle tenant has a promise, too: what its launch takes, without any waiting.
    if _above(load.worst_ms, each.latency_ms):
        yield Violation(
            where, "promise", f"promises {each.latency_ms:.4g} ms, it is {load.worst_ms:.4g} ms"
        )
    # One turn a cycle bounds a tenant's rate, however fast its launches are.
    if each.duty_ms is not None and _above(each.rate_rps * each.duty_ms / 1000, each.batch):
        yield Violation(
            where, "rate",
            f"one batch of {each.batch} a cycle of {each.duty_ms:.4g} ms serves "
            f"{each.batch / each.duty_ms * 1000:.4g} req/s, not {each.rate_rps:.4g}",
        )  # fmt: skip


def _utilisation(
    partition: PartitionPlan, found: list[Load | None], options: PlanOptions
) -> Iterator[Violation]:
    if _above(together := busy(partition, found), options.max_utilisation):
        yield Violation(
            partition.id,
            "utilisation",
            f"busy {together:.4g} of the time, the ceiling is {options.max_utilisation:g}",
        )
    duty_ms = partition.sharers[0].duty_ms if partition.sharers else None
    turns_ms = sum(
        load.point.latency_ms
        for each, load in zip(partition.tenants, found, strict=True)
        if load is not None and each in partition.sharers
    )
    if duty_ms is not None and _above(turns_ms, duty_ms):
        yield Violation(
            partition.id, "duty", f"turns take {turns_ms:.4g} ms of a cycle of {duty_ms:.4g} ms"
        )


def _requests(plan: Plan, tenants: dict[str, Tenant]) -> Iterator[Violation]:
    """A request is launched whole: every batch holds the largest, or routes go by size (elsa)."""
    batches: dict[str, list[int]] = defaultdict(list)
    for _, _, each in plan:
        batches[each.tenant].append(each.batch)
    judge = max if plan.policy == "elsa" else min
    for name, tenant in tenants.items():
        if name in batches and judge(batches[name]) < tenant.largest_request:
            yield Violation(
                name, "request",
                f"holds up to {tenant.largest_request} inputs, a batch {judge(batches[name])}",
            )  # fmt: skip


def _memory(
    plan: Plan, tenants: dict[str, Tenant], profiles: Profiles, device: DeviceFacts
) -> Iterator[Violation]:
    if not profiles.states_memory:
        return
    models = {name: tenant.model for name, tenant in tenants.items()}
    for gpu in plan.gpus:
        needed: dict[str, float] = {}
        for part in gpu.partitions:
            if all(each.tenant in models for each in part.tenants):
                found = loads(part, profiles, models)
                points = [None if load is None else load.point for load in found]
                needed[part.id] = partition_mib(part, points)
            if part.memory_mib is not None and _above(needed.get(part.id, 0.0), part.memory_mib):
                yield Violation(
                    part.id, "promise",
                    f"states {part.memory_mib:,.0f} MiB, it needs {needed[part.id]:,.0f}",
                )  # fmt: skip
        for excess in excesses(gpu, needed, device):
            yield Violation(excess.where, "memory", str(excess))


def _rates(plan: Plan, workload: Workload) -> Iterator[Violation]:
    served: dict[str, float] = defaultdict(float)
    for _, _, each in plan:
        served[each.tenant] += each.rate_rps
    for tenant in workload.tenants:
        if tenant.name not in served and tenant.rate_rps == 0:
            yield Violation(tenant.name, "place", "is on no partition; at rate 0 it needs one too")
        if _above(tenant.rate_rps, served[tenant.name]):
            yield Violation(
                tenant.name, "rate",
                f"{served[tenant.name]:.6g} of {tenant.rate_rps:.6g} req/s are served",
            )  # fmt: skip


def _above(value: float, limit: float) -> bool:
    """Whether `value` exceeds `limit` by more than rounding; NaN always does."""
    return not value <= limit * (1 + TOLERANCE)
