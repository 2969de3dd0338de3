"""The ways one device can be divided into partitions of given sizes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from spacetime.devices import mig
from spacetime.devices.facts import DeviceFacts
from spacetime.errors import UnsupportedError

Size = tuple[str, int]  # a partition's kind and units
MOST = 20_000  # layouts: beyond, choosing among them all takes too long


def layouts(
    sizes: Iterable[Size], device: DeviceFacts, *, most_parts: int | None = None
) -> tuple[dict[Size, int], ...]:
    """Every layout of one device that holds no further partition: how many of each size.

    One kind a layout; with `most_parts` at most that many partitions. Sizes larger than the device
    are in none. Raises UnsupportedError for a kind the device lacks and for too many layouts.

    >>> from spacetime.devices.facts import device
    >>> layouts([("mps", 40), ("mps", 60)], device("rtx-2080ti"))
    ({('mps', 40): 2}, {('mps', 40): 1, ('mps', 60): 1})
    """
    found: list[dict[Size, int]] = []
    sizes = sorted(set(sizes))
    for kind in sorted({kind for kind, _ in sizes}):
        units = tuple(size for of, size in sizes if of == kind)
        whole = device.whole(kind)
        every = (
            _mig(units, device.geometry)
            if kind == "mig"
            else _sums(units, whole, most_parts or whole)
        )
        for layout in every:
            if most_parts is None or len(layout) <= most_parts:
                found.append({(kind, size): count for size, count in Counter(layout).items()})
            if len(found) > MOST:
                raise UnsupportedError(
                    f"{kind}: {len(units)} sizes of partition have more than {MOST} layouts; "
                    "use fewer sizes or most_parts"
                )
    return tuple(found)


def _mig(units: tuple[int, ...], geometry: mig.MigGeometry) -> Iterator[tuple[int, ...]]:
    """Legal multisets of these sizes that none of the others extends."""
    legal = {sizes for sizes in mig.multisets(geometry) if set(sizes) <= set(units)}
    for sizes in sorted(legal):
        if not any(tuple(sorted((*sizes, more), reverse=True)) in legal for more in units):
            yield sizes


def _sums(units: tuple[int, ...], whole: int, most: int) -> Iterator[tuple[int, ...]]:
    """Ascending multisets whose sum fits `whole` and that nothing, or `most`, lets grow."""

    def grow(chosen: tuple[int, ...], left: int) -> Iterator[tuple[int, ...]]:
        room = len(chosen) < most
        if chosen and not (room and units[0] <= left):
            yield chosen
        if room:
            for size in units:
                if size <= left and (not chosen or size >= chosen[-1]):
                    yield from grow((*chosen, size), left - size)

    return grow((), whole)
