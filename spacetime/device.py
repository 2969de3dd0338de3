"""Devices and their partitions: what there is, how it is divided, what was granted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from spacetime.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Device:
    """One device this process may use; `cores` are the ids it is allowed to run on."""

    name: str
    cores: tuple[int, ...]
    chosen: str  # why this one, for explain()


def open_device(name: str = "auto") -> Device:
    """The device called `name`: "cpu", or "auto", which says what it chose.

    Raises UnsupportedError for a device this build cannot drive; nothing falls back silently.
    """
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if name == "cpu":
        return Device("cpu", cores, "asked for")
    if name == "auto":
        return Device("cpu", cores, "auto: this build drives no other device")
    raise UnsupportedError(f"device {name!r}: this build drives only 'cpu' (or 'auto')")


def whole(device: Device) -> list[tuple[int, ...]]:
    """One partition of every core: the layout of time sharing."""
    return [device.cores]


def divided(device: Device, parts: int | None = None) -> list[tuple[int, ...]]:
    """`parts` disjoint partitions of nearly equal size; None makes one of each core."""
    count = len(device.cores) if parts is None else parts
    if not 1 <= count <= len(device.cores):
        raise UnsupportedError(
            f"lanes={count}: device {device.name} has {len(device.cores)} cores for disjoint "
            "partitions; give 1 to that many, or lists of core ids, which may overlap"
        )
    edges = [round(i * len(device.cores) / count) for i in range(count + 1)]
    return [device.cores[a:b] for a, b in pairwise(edges)]


def chosen(device: Device, lanes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Partitions named core by core; they may overlap. Each must lie within the device."""
    for i, cores in enumerate(lanes):
        foreign = sorted(set(cores) - set(device.cores))
        if not cores or foreign:
            raise UnsupportedError(
                f"lanes[{i}]: cores {list(cores)} must be some of {list(device.cores)}, "
                "the cores this process may use"
            )
    return [tuple(cores) for cores in lanes]
