"""From one plan to the next: what stays, what is opened and closed, in what order. Pure.

A move never takes from a tenant what serves it before its new lanes are ready: *shadow* partitions
are opened beside the old ones, tenants are routed to them, and only then the old ones drain and
close. Partitions of kinds `sm`, `mps` and `cores` may overlap for that while on one device. MIG
instances may not: what does not fit beside the device's old instances is opened on another device,
which counts as in use from then on. ParvaGPU (SC'24) reconfigures by shadow processes on spare
devices too; gpulet (ATC'22) hides the 10 to 15 s that a process needs the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from spacetime.devices import mig
from spacetime.plan import GpuPlan, PartitionPlan, Plan


@dataclass(frozen=True, slots=True)
class MoveStep:
    """One thing to do, in order: `open`, `route`, `drain` or `close`.

    `subject` is a partition's id, or for `route` a tenant. A partition is opened once its lanes are
    ready to serve, and closed once nothing waits or runs on them.
    """

    do: str
    subject: str


@dataclass(frozen=True, slots=True)
class Move:
    """How to get from plan `old` to plan `new`.

    `new` is the plan asked for with its devices numbered, and its partitions named, as they are in
    `old` where they stay. `stays`, `opens`, `closes`: partition ids; what stays may change batches,
    rates and turns, but not whom it serves. `devices`: those in use while the move is under way.
    """

    old: Plan
    new: Plan
    stays: frozenset[str]
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    devices: tuple[int, ...]

    @property
    def routes(self) -> tuple[str, ...]:
        """Tenants whose routes, batches or turns change."""
        before, after = _shares(self.old), _shares(self.new)
        return tuple(tenant for tenant in after if before.get(tenant) != after[tenant])

    @property
    def steps(self) -> tuple[MoveStep, ...]:
        """Shadow partitions first, then the routes, then what is left drains and closes."""
        return (
            *(MoveStep("open", each) for each in self.opens),
            *(MoveStep("route", each) for each in self.routes),
            *(MoveStep("drain", each) for each in self.closes),
            *(MoveStep("close", each) for each in self.closes),
        )


def move(old: Plan, new: Plan) -> Move:
    """The move that keeps most of what `old` has open. Both plans are sound, of one device kind."""
    numbers = _matched(old, new)
    before = {part.id: part for gpu in old.gpus for part in gpu.partitions}
    was = {gpu.id: gpu for gpu in old.gpus}
    taken = set(before)
    stays: set[str] = set()
    gpus: list[GpuPlan] = []
    for gpu in new.gpus:
        number = numbers[gpu.id]
        kept = _kept(was[number], gpu) if number in was else {}
        stays |= set(kept.values())
        names = {part.id: kept.get(part.id) or _unused(part.id, taken) for part in gpu.partitions}
        gpus.append(GpuPlan(number, tuple(
            replace(part, id=names[part.id], parent=names.get(part.parent or ""))
            for part in gpu.partitions
        )))  # fmt: skip
    made = replace(new, gpus=tuple(sorted(gpus, key=lambda each: each.id)))
    return Move(
        old, made, frozenset(stays),
        tuple(p.id for gpu in made.gpus for p in gpu.partitions if p.id not in stays),
        tuple(each for each in before if each not in stays),
        tuple(sorted({gpu.id for gpu in (*old.gpus, *made.gpus)})),
    )  # fmt: skip


def _shares(plan: Plan) -> Mapping[str, set[tuple[str, int, float, float | None]]]:
    found: dict[str, set[tuple[str, int, float, float | None]]] = {}
    for _, part, each in plan:
        share = (part.id, each.batch, each.rate_rps, each.duty_ms)
        found.setdefault(each.tenant, set()).add(share)
    return found


def _unused(name: str, taken: set[str]) -> str:
    stem = name.partition("+")[0]  # of names given here before
    names = (f"{stem}+{number}" if number else stem for number in count())
    chosen = next(each for each in names if each not in taken)
    taken.add(chosen)
    return chosen


def _matched(old: Plan, new: Plan) -> dict[int, int]:
    """Device of the new plan -> device it becomes: the pairs that keep most units first."""
    pairs = sorted(
        (-sum(part.units for part in after.partitions if part.id in kept), after.id, before.id)
        for before in old.gpus
        for after in new.gpus
        if _fits_beside(before, after, kept := _kept(before, after))
    )
    found: dict[int, int] = {}
    for _, after, before in pairs:
        if after not in found and before not in found.values():
            found[after] = before
    used = {gpu.id for gpu in old.gpus} | set(found.values())
    spare = (number for number in count() if number not in used)
    for gpu in new.gpus:
        if gpu.id not in found:
            found[gpu.id] = next(spare)
    return found


def _kept(before: GpuPlan, after: GpuPlan) -> dict[str, str]:
    """Partition of `after` -> the one of `before` it is: same place, processes and tenants."""
    left: dict[tuple[object, ...], list[str]] = {}
    for part in before.partitions:
        left.setdefault(_place(part, before), []).append(part.id)
    found = {}
    for part in after.partitions:
        if same := left.get(_place(part, after)):
            found[part.id] = same.pop(0)
    return found


def _place(part: PartitionPlan, gpu: GpuPlan) -> tuple[object, ...]:
    outer = next((each for each in gpu.partitions if each.id == part.parent), None)
    return (
        part.kind, part.units, part.start, part.procs, part.fused,
        None if outer is None else _place(outer, gpu),
        tuple(sorted((each.tenant, each.duty_ms is None) for each in part.tenants)),
    )  # fmt: skip


def _fits_beside(before: GpuPlan, after: GpuPlan, kept: Mapping[str, str]) -> bool:
    """Whether all of `after` can be open while all of `before` still is."""
    added = [part for part in after.partitions if part.id not in kept]
    outer = [part for part in (*before.partitions, *added) if part.parent is None]
    if not added:
        return True
    if len({part.kind for part in outer}) > 1:
        return False
    return outer[0].kind != "mig" or _instances_fit(outer)


def _instances_fit(parts: Iterable[PartitionPlan]) -> bool:
    return mig.fits([mig.Placement(part.units, part.start or 0) for part in parts])
