"""Devices being filled with MIG parts: best fit by compute slices, over legal layouts only."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from spacetime.devices import mig
from spacetime.plan.demand import Part


def slices(parts: Sequence[Part]) -> int:
    """Compute slices that parts take together."""
    return sum(part.point.units for part in parts)


class Devices:
    """A growing row of devices; a part goes where it leaves least, the first of equals.

    Devices of equal sizes are kept together: there are 37 multisets, whatever the number of
    devices, so placing stays cheap. `two_threes` allows two instances of three slices on one.
    """

    def __init__(self, *, two_threes: bool, geometry: mig.MigGeometry = mig.WIDE) -> None:
        self._geometry = geometry
        self.parts: list[list[Part]] = []
        self._two_threes = two_threes
        self._sizes: list[tuple[int, ...]] = []
        self._of_sizes: dict[tuple[int, ...], list[int]] = {}  # heaps; stale numbers are skipped

    def copy(self) -> Devices:
        """The same devices, changed apart from these."""
        other = Devices(two_threes=self._two_threes, geometry=self._geometry)
        for number, parts in enumerate(self.parts):
            other.parts.append([])
            other._sizes.append(())
            other._set(number, list(parts))
        return other

    def used(self) -> int:
        """Devices that hold anything."""
        return sum(1 for parts in self.parts if parts)

    def place(self, part: Part) -> None:
        """Put a part on the device with least room that can hold it, or on a new one."""
        fitting = [
            (-sum(sizes), number)
            for sizes in self._of_sizes
            if self._holds(sizes, part.point.units) and (number := self._first(sizes)) is not None
        ]
        if not fitting:
            self.parts.append([])
            self._sizes.append(())
        number = min(fitting)[1] if fitting else len(self.parts) - 1
        self._set(number, [*self.parts[number], part])

    def has_room(self, units: int) -> bool:
        """Whether some device that is there holds an instance of this size more."""
        return any(
            self._holds(sizes, units) and self._first(sizes) is not None for sizes in self._of_sizes
        )

    def take(self, number: int, wanted: Callable[[Part], bool]) -> list[Part]:
        """Remove and return a device's parts that are `wanted`."""
        parts = self.parts[number]
        self._set(number, [part for part in parts if not wanted(part)])
        return [part for part in parts if wanted(part)]

    def _set(self, number: int, parts: list[Part]) -> None:
        self.parts[number] = parts
        self._sizes[number] = sizes = _sorted(part.point.units for part in parts)
        heapq.heappush(self._of_sizes.setdefault(sizes, []), number)

    def _first(self, sizes: tuple[int, ...]) -> int | None:
        heap = self._of_sizes[sizes]
        while heap and self._sizes[heap[0]] != sizes:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _holds(self, sizes: tuple[int, ...], more: int) -> bool:
        whole = _sorted((*sizes, more))
        allowed = self._two_threes or whole.count(3) < 2
        return allowed and mig.arrange(whole, self._geometry) is not None


def _sorted(sizes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(sizes, reverse=True))
