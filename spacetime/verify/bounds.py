"""What a partition must hold to pass, and whether it did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from spacetime.verify.measure import ProbedPair


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the private part, of the shared part, and of the measurement itself.

    A pair is private when its probe or its stressor works only on what a partition has for itself;
    no partition of cores or SMs isolates what both sides share, so that bound is looser.
    """

    private_held: float = 0.9
    private_p99: float = 1.5
    shared_held: float = 0.3
    shared_p99: float = 6.0
    busy: float = 0.8  # a stressor that paused proved nothing


def broken(pair: ProbedPair, bounds: Bounds, private: Collection[str]) -> list[str]:
    """The bounds this pair breaks, in words; none when it passes."""
    own = is_private(pair, private)
    held = bounds.private_held if own else bounds.shared_held
    p99 = bounds.private_p99 if own else bounds.shared_p99
    problems = []
    if pair.held_frac < held:
        problems.append(f"held {pair.held_frac:.2f} < {held:g}")
    if pair.p99_inflation > p99:
        problems.append(f"p99 x{pair.p99_inflation:.2f} > x{p99:g}")
    if pair.leaked:
        problems.append(f"leaked in {pair.leaked} of {pair.looked} looks")
    if pair.busy_frac < bounds.busy:
        problems.append(f"stressor busy {pair.busy_frac:.2f} < {bounds.busy:g}: nothing proved")
    return problems


def is_private(pair: ProbedPair, private: Collection[str]) -> bool:
    """Whether the two sides touch nothing they share."""
    return pair.probe in private or pair.stressor in private
