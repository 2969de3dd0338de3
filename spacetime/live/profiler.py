"""Measures a profile: every model, units, batch, procs and number of tenants on an open device.

A round of a point is the median of its launches, or their mean where processes compete. Rounds of
the points that share a rig are interleaved, A B C A B C, so that a machine that drifts favours
none; a point is the median of its rounds. Everything is on disk as soon as it is measured, and what
is there is not measured again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles

from spacetime.devices.device import Device, Units, sized
from spacetime.errors import OutOfMemory, UnsupportedError
from spacetime.live.profiler_rig import ProfilerRig
from spacetime.models.loading import LoadedModel, load_model
from spacetime.profiles.profile import Key
from spacetime.profiles.profile_rounds import Round, Rounds
from spacetime.units import ms_from_ns
from spacetime.workload.workload import Tenant, Workload, WorkloadError

BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Extent:
    """What to measure: each combination of a size, a batch, a number of processes and of tenants.

    units: sizes of partitions in cores or SMs; empty: a ladder up to the whole device. batches: in
    samples; empty: the tenants' own. procs: how many processes share a partition. tenants: how many
    tenants share a launch.
    """

    units: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    procs: tuple[int, ...] = (1,)
    tenants: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class RigSetting:
    """What one rig measures: a model of `tenants` tenants on one partition, at each point.

    live: the model as it runs. units: the partition's. points: pairs of a batch and a number of
    processes.
    """

    model: str
    live: LoadedModel
    units: Units
    tenants: int
    points: tuple[tuple[int, int], ...]

    def key(self, device: Device, batch: int, procs: int) -> Key:
        """How profiles call one of the points."""
        units = device.size(self.units)
        return (self.model, device.kind, units, batch, procs, self.tenants)


def models_of(workload: Workload, folder: Path) -> dict[str, tuple[Tenant, LoadedModel]]:
    """Each model once, with the first tenant that names it.

    Raises WorkloadError where tenants of one model take other inputs, and what `load_model` raises.
    """
    models: dict[str, tuple[Tenant, LoadedModel]] = {}
    for number, tenant in enumerate(workload.tenants):
        if tenant.model not in models:
            loaded = load_model(tenant, folder, seed=workload.seed + number)
            models[tenant.model] = (tenant, loaded)
            continue
        first = models[tenant.model][0]
        if _tails(tenant) != _tails(first):
            raise WorkloadError(
                f"tenant {tenant.name}: example_inputs",
                f"differ from tenant {first.name}'s, of the same model {tenant.model}; "
                "a profile has one shape a model: give them models of other names",
            )
    return models


def batches_of(tenant: Tenant, extent: Extent) -> tuple[int, ...]:
    """The batches to measure: those asked for, else the tenant's own, else powers of two to 32."""
    return tuple(sorted(extent.batches or tenant.batch_sizes or BATCHES))


def settings(
    models: Mapping[str, tuple[Tenant, LoadedModel]], device: Device, extent: Extent
) -> list[RigSetting]:
    """Every rig that is needed. Raises UnsupportedError for units that the device does not have.

    Sizes are rounded up to whole units of the device; those that become alike are measured once.
    """
    partitions = {device.size(part): part for part in _partitions(device, extent.units)}
    rigs = []
    for (model, (tenant, live)), part, tenants in itertools.product(
        models.items(), partitions.values(), extent.tenants
    ):
        batches = [batch for batch in batches_of(tenant, extent) if batch >= tenants]
        if batches:
            points = tuple(itertools.product(batches, extent.procs))
            rigs.append(RigSetting(model, live, part, tenants, points))
    return rigs


def _partitions(device: Device, units: Sequence[int]) -> Iterator[Units]:
    wanted = units or _ladder(sum(device.sizes), device.sizes[0])
    for size in wanted:
        if not 1 <= size <= sum(device.sizes):
            raise UnsupportedError(
                f"units: {size} {device.measure}; {device.name} has 1 to {sum(device.sizes)}"
            )
        yield sized(device, [size])[0]


def _ladder(whole: int, unit: int) -> list[int]:
    """One unit, doubled until the whole device."""
    steps = itertools.takewhile(lambda n: n < whole, (unit << n for n in itertools.count()))
    return [*steps, whole]


def _tails(tenant: Tenant) -> list[tuple[tuple[int, ...], str]]:
    return [(spec.shape[1:], spec.datatype) for spec in tenant.example_inputs]


def measure(
    wanted: Sequence[RigSetting], device: Device, rounds: Rounds, *, seen: Callable[[Round], None]
) -> list[str]:
    """Measures what is missing, one rig after another; returns what could not be, and why.

    seen: called after each round, when it is on disk. Raises what admitting a model raises.
    """
    notes = []
    for setting in wanted:
        missing = {point: rounds.missing(setting.key(device, *point)) for point in setting.points}
        if not any(missing.values()):
            continue
        try:
            with _rig(setting, device) as rig:
                if rig.fuses:
                    for point in _interleaved(missing):
                        measured = _round(setting, rounds, rig, point)
                        rounds.add(measured)  # on disk before anybody hears of it
                        seen(measured)
                else:
                    notes.append(f"{setting.model}: {setting.tenants} tenants share no launch")
        except OutOfMemory as reason:
            notes.append(f"{setting.model} on {device.size(setting.units)}: {reason}")
    return notes


def _interleaved(missing: Mapping[tuple[int, int], int]) -> Iterator[tuple[int, int]]:
    """Every point as often as it is missing, in turns."""
    for turn in range(max(missing.values())):
        yield from (point for point, rounds in missing.items() if turn < rounds)


def missing_rounds(wanted: Sequence[RigSetting], device: Device, rounds: Rounds) -> int:
    """How many rounds are still to do."""
    points = ((setting, point) for setting in wanted for point in setting.points)
    return sum(rounds.missing(setting.key(device, *point)) for setting, point in points)


def _rig(setting: RigSetting, device: Device) -> ProfilerRig:
    return ProfilerRig(
        device,
        setting.units,
        setting.live.module,
        setting.live.example_inputs,
        tenants=setting.tenants,
        procs=max(procs for _, procs in setting.points),
        largest=max(batch for batch, _ in setting.points),
    )


def _round(setting: RigSetting, rounds: Rounds, rig: ProfilerRig, point: tuple[int, int]) -> Round:
    batch, procs = point
    took = [ms_from_ns(ns) for ns in rig.time(batch, procs)]
    deciles = quantiles(took, n=10, method="inclusive")
    # Processes that take turns on a core are fast while they have it: only the mean knows.
    typical = fmean(took) if procs > 1 else median(took)
    return Round(
        setting.model,
        rounds.device,
        rig.kind,
        rig.granted,
        batch,
        procs,
        setting.tenants,
        typical,
        deciles[0],
        deciles[-1],
        len(took),
        rig.memory_mib,
        rounds.source,
    )
