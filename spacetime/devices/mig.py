"""MIG geometry: which instances fit one device together. Pure data and arithmetic.

An instance takes a run of memory slices that starts where its profile allows, and a number of
compute slices: of 8 and 7 on most devices (`WIDE`), of 4 and 4 on an A30 (`NARROW`). Placements
and sizes: NVIDIA MIG User Guide, "Supported MIG Profiles", and `nvidia-smi mig -lgipp` of A100 and
H100; H200 has the same, and B200 shows the same profiles and counts, its placements being taken as
equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MEMORY_SLICES = 8  # of most devices
COMPUTE_SLICES = 7  # of most devices


class Shape(NamedTuple):
    """The size of an instance in both kinds of slices, and the memory slices it may start on."""

    units: int  # compute slices, which are the partition's units
    memory: int  # memory slices
    starts: tuple[int, ...]


class Placement(NamedTuple):
    """An instance of `units` compute slices whose memory begins at slice `start`."""

    units: int
    start: int


# The profile of each size that holds most compute for its memory: what planners choose from.
SHAPES: dict[int, Shape] = {
    1: Shape(1, 1, (0, 1, 2, 3, 4, 5, 6)),
    2: Shape(2, 2, (0, 2, 4)),
    3: Shape(3, 4, (0, 4)),
    4: Shape(4, 4, (0,)),
    7: Shape(7, 8, (0,)),
}
DOUBLE_MEMORY = Shape(1, 2, (0, 2, 4, 6))
SIZES = tuple(SHAPES)


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One row of a device's table of profiles: a size of instance that it can have."""

    name: str
    id: int  # nvidia-smi's number of the profile
    shape: Shape
    memory_mib: int  # of the memory, what a process can use
    sms: int
    copy_engines: int
    most: int  # instances of this profile on one device

    @property
    def units(self) -> int:
        """Compute slices: the `g` of the name, never a measure of SMs."""
        return self.shape.units


@dataclass(frozen=True, slots=True)
class MigGeometry:
    """What a kind of device has to divide, and the shapes of its instances, one a size."""

    compute: int  # compute slices of the whole device
    shapes: tuple[Shape, ...]

    def shape(self, units: int) -> Shape | None:
        """Returns the shape of `units` compute slices; None where there is none."""
        return _by_units(self.shapes).get(units)


@lru_cache(maxsize=64)
def _by_units(shapes: tuple[Shape, ...]) -> dict[int, Shape]:
    return {shape.units: shape for shape in shapes}


WIDE = MigGeometry(COMPUTE_SLICES, tuple(SHAPES.values()))
# A30: User Guide, "A30 MIG Profiles".
NARROW = MigGeometry(4, (Shape(1, 1, (0, 1, 2, 3)), Shape(2, 2, (0, 2)), Shape(4, 4, (0,))))


@lru_cache(maxsize=64)
def geometry_of(profiles: tuple[MigProfile, ...]) -> MigGeometry:
    """Returns the geometry of a device with these profiles: of each size the shape of least memory.

    A device without profiles has the usual one.
    """
    least: dict[int, Shape] = {}
    for profile in profiles:
        shape = least.get(profile.units)
        if shape is None or profile.shape.memory < shape.memory:
            least[profile.units] = profile.shape
    geometry = (
        MigGeometry(max(least), tuple(least[units] for units in sorted(least))) if least else WIDE
    )
    return next((usual for usual in (WIDE, NARROW) if usual == geometry), geometry)


def mask_of(placement: Placement, geometry: MigGeometry = WIDE) -> int:
    """Returns the memory slices that a placement takes, as bits.

    Raises KeyError for a size that MIG lacks.
    """
    if (shape := geometry.shape(placement.units)) is None:
        raise KeyError(placement.units)
    return ((1 << shape.memory) - 1) << placement.start


def is_legal(placement: Placement, geometry: MigGeometry = WIDE) -> bool:
    """Whether the driver would create this instance on an empty device."""
    shape = geometry.shape(placement.units)
    return shape is not None and placement.start in shape.starts


def fits(placements: Iterable[Placement], geometry: MigGeometry = WIDE) -> bool:
    """Whether all placements are legal and can exist on one device at once.

    >>> fits([Placement(3, 0), Placement(3, 4)]), fits([Placement(4, 0), Placement(2, 2)])
    (True, False)
    """
    taken = compute = 0
    for placement in placements:
        if not is_legal(placement, geometry):
            return False
        if taken & (mask := mask_of(placement, geometry)):
            return False
        taken |= mask
        compute += placement.units
    return compute <= geometry.compute


def every_placement(geometry: MigGeometry = WIDE) -> tuple[Placement, ...]:
    """Returns every legal instance of an empty device."""
    return tuple(
        Placement(shape.units, start) for shape in geometry.shapes for start in shape.starts
    )


@lru_cache(maxsize=8)
def layouts(geometry: MigGeometry = WIDE) -> tuple[tuple[Placement, ...], ...]:
    """Returns every set of placements that fits one device, but the empty one: 297 by `WIDE`."""
    return tuple(_extensions((), every_placement(geometry), geometry))


def _extensions(
    chosen: tuple[Placement, ...], rest: tuple[Placement, ...], geometry: MigGeometry
) -> Iterator[tuple[Placement, ...]]:
    for number, placement in enumerate(rest):
        longer = (*chosen, placement)
        if fits(longer, geometry):
            yield longer
            yield from _extensions(longer, rest[number + 1 :], geometry)


@lru_cache(maxsize=8)
def maximal_layouts(geometry: MigGeometry = WIDE) -> tuple[tuple[Placement, ...], ...]:
    """Returns the layouts that nothing can be added to: the 19 "configurations" of an A100."""
    every = every_placement(geometry)
    return tuple(
        layout
        for layout in layouts(geometry)
        if not any(fits((*layout, more), geometry) for more in every)
    )


def sizes_of(layout: Iterable[Placement]) -> tuple[int, ...]:
    """Returns the sizes of a layout, largest first."""
    return tuple(sorted((placement.units for placement in layout), reverse=True))


@lru_cache(maxsize=8)
def multisets(geometry: MigGeometry = WIDE) -> frozenset[tuple[int, ...]]:
    """Returns the multisets of sizes that some layout has: 37 by `WIDE`."""
    return frozenset(sizes_of(layout) for layout in layouts(geometry))


@lru_cache(maxsize=1)
def maximal_multisets() -> tuple[tuple[int, ...], ...]:
    """Returns the 12 multisets that no size can be added to, largest sizes first."""
    whole = multisets()
    return tuple(
        sorted(
            (
                sizes
                for sizes in whole
                if not any(tuple(sorted((*sizes, more), reverse=True)) in whole for more in SIZES)
            ),
            reverse=True,
        )
    )


@lru_cache(maxsize=4096)
def arrange(sizes: tuple[int, ...], geometry: MigGeometry = WIDE) -> tuple[int, ...] | None:
    """Returns a legal start for each size, in the order given; None where they do not fit together.

    >>> arrange((2, 3, 2))
    (0, 4, 2)
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    placements = _search([sizes[i] for i in order], (), geometry)
    if placements is None:
        return None
    starts = dict(zip(order, (placement.start for placement in placements), strict=True))
    return tuple(starts[i] for i in range(len(sizes)))


def _search(
    sizes: Sequence[int], chosen: tuple[Placement, ...], geometry: MigGeometry
) -> tuple[Placement, ...] | None:
    if not sizes:
        return chosen
    if (shape := geometry.shape(sizes[0])) is None:
        return None
    for start in shape.starts:
        longer = (*chosen, Placement(sizes[0], start))
        if fits(longer, geometry):
            placements = _search(sizes[1:], longer, geometry)
            if placements is not None:
                return placements
    return None
