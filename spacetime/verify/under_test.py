"""What `verify` asks of a device: partitions on which work of three kinds can be run and watched.

Cores and SMs each fill these protocols; what is measured and how it is judged is the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Fed:
    """What a stressor did from start to stop: its launches, and for which part of the time."""

    launches: int
    busy_frac: float


class Partition(Protocol):
    """One partition. Launches of one kind are all of the same size; one thing runs at a time."""

    @property
    def asked(self) -> Sequence[int]:
        """The units asked for: cores, or groups of SMs."""
        ...

    @property
    def granted(self) -> int:
        """How many units the device granted, read back from it: cores, or SMs."""
        ...

    @property
    def home(self) -> frozenset[int]:
        """The hardware units this partition may use: core ids, or SM ids."""
        ...

    def work(self, kind: str) -> float:
        """GFLOP (compute) or GB moved by one launch of this kind."""
        ...

    def probe(self, kind: str, launches: int) -> list[int]:
        """Runs `launches` launches, one after another; returns the nanoseconds that each took."""
        ...

    def start(self, kind: str) -> None:
        """Launches without a pause until stop(); returns when the first launch is done."""
        ...

    def stop(self) -> Fed:
        """Ends what start() began."""
        ...

    def where(self) -> frozenset[int]:
        """The hardware units on which this partition's launches were seen just now."""
        ...


class Ground(Protocol):
    """A device divided into the partitions to verify; close() releases it."""

    @property
    def partitions(self) -> Sequence[Partition]:
        """The partitions, disjoint."""
        ...

    @property
    def facts(self) -> dict[str, object]:
        """`device`, `kind`, `unit`, and what else describes the device; every value fits JSON."""
        ...

    @property
    def private(self) -> frozenset[str]:
        """The kinds of work whose resources a partition has for itself."""
        ...

    @property
    def shared(self) -> str:
        """In words, what partitions of this kind do not isolate."""
        ...

    def close(self) -> None:
        """Ends the partitions."""
        ...
