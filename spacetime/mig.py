"""MIG geometry: which instances fit one device together. Pure data and arithmetic.

An instance takes a run of memory slices (8 on every device here) that starts where its profile
allows, and a number of compute slices (7). Placements and sizes: NVIDIA MIG User Guide,
"Supported MIG Profiles", and `nvidia-smi mig -lgipp` of A100 and H100; H200 has the same, and
B200 shows the same profiles and counts, its placements being taken as equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MEMORY_SLICES = 8
COMPUTE_SLICES = 7


class Shape(NamedTuple):
    """The size of an instance in both kinds of slices, and the memory slices it may start on."""

    units: int  # compute slices: the partition's units
    memory: int
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
    """One row of a device's profile table: `id` is nvidia-smi's, `memory_mib` what is usable."""

    name: str
    id: int
    shape: Shape
    memory_mib: int
    sms: int
    copy_engines: int
    most: int

    @property
    def units(self) -> int:
        """Compute slices: the `g` of the name, never a measure of SMs."""
        return self.shape.units


def mask_of(placement: Placement) -> int:
    """The memory slices a placement takes, as bits. Raises KeyError for a size MIG lacks."""
    return ((1 << SHAPES[placement.units].memory) - 1) << placement.start


def is_legal(placement: Placement) -> bool:
    """Whether the driver would make this instance on an empty device."""
    shape = SHAPES.get(placement.units)
    return shape is not None and placement.start in shape.starts


def fits(placements: Iterable[Placement]) -> bool:
    """Whether all placements are legal and can exist on one device at once.

    >>> fits([Placement(3, 0), Placement(3, 4)]), fits([Placement(4, 0), Placement(2, 2)])
    (True, False)
    """
    taken = compute = 0
    for placement in placements:
        if not is_legal(placement) or taken & (mask := mask_of(placement)):
            return False
        taken |= mask
        compute += placement.units
    return compute <= COMPUTE_SLICES


def every_placement() -> tuple[Placement, ...]:
    """Each legal instance of an empty device."""
    return tuple(
        Placement(shape.units, start) for shape in SHAPES.values() for start in shape.starts
    )


@lru_cache(maxsize=1)
def layouts() -> tuple[tuple[Placement, ...], ...]:
    """Every set of placements, not empty, that fits one device: 297 of them."""
    return tuple(_extensions((), every_placement()))


def _extensions(
    chosen: tuple[Placement, ...], rest: tuple[Placement, ...]
) -> Iterator[tuple[Placement, ...]]:
    for number, placement in enumerate(rest):
        longer = (*chosen, placement)
        if fits(longer):
            yield longer
            yield from _extensions(longer, rest[number + 1 :])


@lru_cache(maxsize=1)
def maximal_layouts() -> tuple[tuple[Placement, ...], ...]:
    """The layouts nothing can be added to: the 19 "configurations" of an A100."""
    every = every_placement()
    return tuple(layout for layout in layouts() if not any(fits((*layout, more)) for more in every))


def sizes_of(layout: Iterable[Placement]) -> tuple[int, ...]:
    """The sizes of a layout, largest first: its multiset."""
    return tuple(sorted((placement.units for placement in layout), reverse=True))


@lru_cache(maxsize=1)
def multisets() -> frozenset[tuple[int, ...]]:
    """The 37 multisets of sizes that some layout has."""
    return frozenset(sizes_of(layout) for layout in layouts())


@lru_cache(maxsize=1)
def maximal_multisets() -> tuple[tuple[int, ...], ...]:
    """The 12 multisets no size can be added to, largest sizes first."""
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
def arrange(sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """A legal start for each size, in the order given; None where they do not fit together.

    >>> arrange((2, 3, 2))
    (0, 4, 2)
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    found = _search([sizes[i] for i in order], ())
    if found is None:
        return None
    starts = dict(zip(order, (placement.start for placement in found), strict=True))
    return tuple(starts[i] for i in range(len(sizes)))


def _search(sizes: Sequence[int], chosen: tuple[Placement, ...]) -> tuple[Placement, ...] | None:
    if not sizes:
        return chosen
    if (shape := SHAPES.get(sizes[0])) is None:
        return None
    for start in shape.starts:
        longer = (*chosen, Placement(sizes[0], start))
        if fits(longer) and (found := _search(sizes[1:], longer)) is not None:
            return found
    return None
