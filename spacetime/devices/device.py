"""Opened devices and their partitions: which units there are, and how they are divided.

A partition is named by its *units*. On a CPU they are ids of cores. On a CUDA device they are ids
of the groups of SMs that the driver's one split made; the last group may be the remainder.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch

import spacetime._native as _native
from spacetime.devices.queues import of_this_process as queues
from spacetime.errors import InvalidInput, UnsupportedError

Units = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """One device this process may use. `sizes`: cores or SMs of each unit.

    Where every unit is served by a process of its own (`isolation/shares.py` makes such devices),
    `environments` are the variables of each unit's process, `host` is the class that holds the
    models there, written `module:Class`, and `within` is the device that the process opens.
    `before_kill` is called with the number of a process that has to be killed, before it is.
    """

    name: str
    kind: str  # of its partitions: "cores", "sm", "mps" or "mig"
    units: Units
    sizes: tuple[int, ...]  # of each unit, in what `measure` names: cores, SMs, percent or slices
    chosen: str  # why this device, for explain()
    native: _native.CudaDevice | None = None
    domains: tuple[int, ...] = ()  # the locality domain of each unit; -1 where it is in none
    environments: tuple[Mapping[str, str], ...] = ()
    host: str = ""
    within: str = ""
    before_kill: Callable[[int], None] | None = None

    @property
    def cores(self) -> Units:
        """The cores this process may use; none on a device of another kind."""
        return self.units if self.kind == "cores" else ()

    @property
    def fake(self) -> bool:
        """Whether the device is simulated in virtual time: only where it was asked for by name."""
        return isinstance(self.native, _native.FakeCudaDevice)

    @property
    def measure(self) -> str:
        """The word for what `sizes` count."""
        return {"cores": "cores", "sm": "SMs", "mps": "percent", "mig": "slices"}[self.kind]

    def dispatched_on(self, units: Sequence[int]) -> Units:
        """Returns what the thread that serves a partition is bound to: cores, or the units.

        Where partitions are processes, that is any core this process may use.
        """
        return tuple(sorted(os.sched_getaffinity(0))) if self.environments else tuple(units)

    def why_not(self, units: Sequence[int]) -> str:
        """Returns why the driver makes no partition of these units; empty where it makes one."""
        return "" if self.native is None else self.native.why_not(units)

    def regions(self, units: Sequence[int]) -> list[list[int]]:
        """Returns the units by locality domain: only those of one may share a partition."""
        domains = dict(zip(self.units, self.domains, strict=False))
        runs = itertools.groupby(units, key=lambda unit: domains.get(unit, -1))
        return [list(run) for _, run in runs]

    def size(self, units: Collection[int]) -> int:
        """Returns the size of a partition: the sum of its units' sizes."""
        by_unit = dict(zip(self.units, self.sizes, strict=True))
        return sum(by_unit[u] for u in units)


def open_device(name: str = "auto", *, unit_sms: int = 0, domains: bool = False) -> Device:
    """Opens the device called `name`: "cpu", "cuda:0", "fake:h200" or "auto".

    "auto" takes cuda:0 where PyTorch and spacetime can use it, else the CPU; `Device.chosen` says
    which and why. Nothing else falls back: a device that cannot be driven raises UnsupportedError.

    unit_sms: how many SMs a unit of a CUDA device has, an even number; 0 takes the smallest that
    hold large clusters.
    domains: whether each unit of a CUDA device lies in one locality domain, and so each partition.
    """
    if not isinstance(name, str):
        expected = "'cpu', 'cuda:0', 'fake:h200', 'auto' or what device.open_device returned"
        raise InvalidInput("-", "device", expected, f"{name!r:.60}")
    kind, _, which = name.partition(":")
    if name == "cpu":
        return _cpu("asked for")
    if kind == "fake" and which:
        return on_device(name, _fake(which, unit_sms, domains=domains), "asked for")
    if kind == "cuda" and (which or "0").isdecimal():
        return _cuda(int(which or 0), "asked for", unit_sms, domains=domains)
    if name == "auto":
        return _auto(unit_sms, domains=domains)
    raise UnsupportedError(f"device {name!r}: use 'cpu', 'cuda:0', 'fake:h200' or 'auto'")


def _cpu(chosen: str) -> Device:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    return Device("cpu", "cores", cores, (1,) * len(cores), chosen)


def _auto(unit_sms: int, *, domains: bool) -> Device:
    queues.ask()  # before PyTorch looks: it initialises the driver
    if not torch.cuda.is_available():
        return _cpu("auto: PyTorch finds no CUDA device")
    try:
        return _cuda(0, "auto: the first CUDA device", unit_sms, domains=domains)
    except UnsupportedError as reason:
        return _cpu(f"auto: {reason}")


def _cuda(ordinal: int, chosen: str, unit_sms: int, *, domains: bool) -> Device:
    queues.ask()
    try:
        native = _native.CudaDevice.open(ordinal, unit_sms=unit_sms, domains=domains)
    except (ValueError, UnsupportedError) as reason:
        raise UnsupportedError(f"device cuda:{ordinal}: {reason}") from None
    return on_device(f"cuda:{ordinal}", native, chosen)


def _fake(which: str, unit_sms: int, *, domains: bool) -> _native.FakeCudaDevice:
    try:
        driver = _native.FakeDriver(which)
        return _native.FakeCudaDevice(driver, unit_sms=unit_sms, domains=domains)
    except ValueError as reason:
        raise UnsupportedError(f"device 'fake:{which}': {reason}") from None


def on_device(name: str, native: _native.CudaDevice, chosen: str = "given") -> Device:
    """Returns a device that was opened elsewhere, with options of its own."""
    sizes, domains = tuple(native.unit_sms), tuple(native.unit_domains)
    return Device(name, "sm", tuple(range(len(sizes))), sizes, chosen, native, domains)


def laid_out(
    device: Device,
    lanes: int | Sequence[Sequence[int]] | None,
    sizes: Sequence[int] | None,
    *,
    one: bool,
) -> list[Units]:
    """Returns the partitions that a session's options `lanes` and `sizes` ask for.

    one: where neither is given, whether one partition holds the whole device. Raises InvalidInput
    naming the option, and UnsupportedError where the device lacks what is asked.
    """
    if device.environments:
        if lanes is not None or sizes is not None:
            given = f"lanes={lanes}, sizes={sizes}"
            raise InvalidInput("-", "lanes", "left out, for each share is a lane", given)
        return divided(device)
    if sizes is not None:
        if lanes is not None:
            raise InvalidInput("-", "sizes", "given without lanes", "both")
        return sized(device, sizes)
    if isinstance(lanes, int | Integral):
        return divided(device, int(lanes))
    if lanes is not None:
        return chosen(device, lanes)
    return whole(device) if one else divided(device)


def whole(device: Device) -> list[Units]:
    """Returns one partition of the whole device: the layout of time sharing."""
    return [device.units]


def divided(device: Device, parts: int | None = None) -> list[Units]:
    """Returns `parts` disjoint partitions of nearly equal size.

    None makes one of each core, or two halves of a CUDA device: super-kernels fill a half, and a
    second lane keeps the device busy while the first one's batch is gathered and copied. Where
    units lie in locality domains, every domain is divided alike. Raises UnsupportedError.
    """
    regions = device.regions(device.units)
    if len(regions) > 1:
        return _divided_domains(device, regions, parts)
    count = len(device.units) if device.environments else parts
    if count is None:
        count = len(device.units) if device.kind == "cores" else min(2, len(device.units))
    if not 1 <= count <= len(device.units):
        raise UnsupportedError(
            f"lanes={count}: device {device.name} divides into at most {len(device.units)} "
            f"disjoint partitions ({_in_words(device)}); give 1 to that many, or lists of unit "
            "ids, which may overlap"
        )
    return _even(device.units, count)


def _divided_domains(
    device: Device, regions: Sequence[Sequence[int]], parts: int | None
) -> list[Units]:
    domains = [region for region in regions if device.domains[region[0]] >= 0]  # no remainder
    count = len(domains) if parts is None else parts
    per_domain, over = divmod(count, len(domains))
    if over or not 1 <= per_domain <= min(map(len, domains)):
        raise UnsupportedError(
            f"lanes={count}: device {device.name} is opened by its {len(domains)} locality domains "
            f"({_in_words(device)}); give a multiple of {len(domains)}, or lists of unit ids"
        )
    return [part for region in domains for part in _even(tuple(region), per_domain)]


def _even(units: Units, count: int) -> list[Units]:
    edges = [round(i * len(units) / count) for i in range(count + 1)]
    return [units[a:b] for a, b in itertools.pairwise(edges)]


def sized(device: Device, wanted: Sequence[int]) -> list[Units]:
    """Returns disjoint partitions of at least `wanted` cores or SMs each, in whole units.

    Raises UnsupportedError for sizes that do not fit beside each other.
    """
    left = list(device.units)
    partitions: list[Units] = []
    for number, size in enumerate(wanted):
        fits = [
            units
            for region in device.regions(left)
            for units in (_first(device, region, size), _with_last(device, region, size))
            if units
        ]
        if size < 1 or not fits:
            granted = [device.size(p) for p in partitions]
            raise UnsupportedError(
                f"lanes[{number}]: {size} {device.measure} are not there; device {device.name} "
                f"has {sum(device.sizes)} ({_in_words(device)}), of which the lanes before got "
                f"{granted} after rounding up"
            )
        # The smallest first: what is rounded up least leaves most for the sizes to come.
        partitions.append(_makeable(device, number, sorted(fits, key=device.size)))
        left = [unit for unit in left if unit not in partitions[-1]]
    return partitions


def _makeable(device: Device, number: int, fits: Sequence[Units]) -> Units:
    """Returns the first of these partitions, for lane `number`, that the driver makes.

    Raises UnsupportedError where it makes none.
    """
    for units in fits:
        if not device.why_not(units):
            return units
    raise UnsupportedError(
        f"lanes[{number}]: the driver makes no partition of units {list(fits[0])} "
        f"({device.size(fits[0])} SMs): {device.why_not(fits[0])}; ask for another size"
    )


def _first(device: Device, left: Sequence[int], size: int) -> Units:
    """Returns the first units that hold `size`, in order; none where all together do not."""
    sums = list(itertools.accumulate(device.size([u]) for u in left))
    count = next((i + 1 for i, held in enumerate(sums) if held >= size), 0)
    return tuple(left[:count])


def _with_last(device: Device, left: Sequence[int], size: int) -> Units:
    """Returns the last unit, which may be a remainder of another size, with the first units that
    it takes to hold `size`; none where they do not."""
    if not left:
        return ()
    rest = size - device.size(left[-1:])
    others = _first(device, left[:-1], rest) if rest > 0 else ()
    return (*others, left[-1]) if others or rest <= 0 else ()


def chosen(device: Device, lanes: Sequence[Sequence[int]]) -> list[Units]:
    """Returns the partitions that are named unit by unit; they may overlap.

    Raises UnsupportedError for units that this process may not use.
    """
    for i, units in enumerate(lanes):
        foreign = sorted(set(units) - set(device.units))
        if not units or foreign:
            what = "cores" if device.kind == "cores" else "units"
            raise UnsupportedError(
                f"lanes[{i}]: {what} {list(units)} must be some of {list(device.units)}, "
                f"which this process may use on {device.name}"
            )
    return [tuple(units) for units in lanes]


def _in_words(device: Device) -> str:
    if device.kind == "cores":
        return f"one for each of {len(device.units)} cores"
    rest = " and a remainder of " + str(device.sizes[-1])
    has_rest = device.native is not None and device.native.has_remainder
    groups = len(device.sizes) - has_rest
    domains = len({domain for domain in device.domains if domain >= 0})
    where = f" in {domains} locality domains" if domains else ""
    return f"{groups} groups of {device.sizes[0]} SMs{where}{rest if has_rest else ''}"
