"""Where more of a device stops paying: the knee of a rate against size, by a rule that is named.

gpulet (ATC'22) does not define its knee, and its re-implementations disagree on its own data, so
the rule is the caller's choice. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import dist
from typing import Literal, get_args

from spacetime.errors import UnsupportedError

Knee = Literal["gain", "curvature", "curvature-normalised", "per-unit", "none"]
KNEES: tuple[Knee, ...] = get_args(Knee)
LEAST_GAIN = 0.05  # of the released gpulet code: a step that brings less is ignored
Place = tuple[float, float]
Curve = Sequence[tuple[int, float]]  # (units, rate), by ascending units


def knee_of(curve: Curve, rule: Knee) -> int:
    """The units of a curve's knee; sizes of rate 0 never are.

    `gain`: the upper end of the step that adds most rate per unit, never the step to the largest
    size (the released code). `curvature`: where the circle through three neighbouring points is
    smallest, on the axes as they are, or each divided by its largest value. `per-unit`: the most
    rate per unit. `none`: the largest size. Raises UnsupportedError for another rule, ValueError
    where all rates are 0.

    >>> knee_of([(20, 94), (40, 237), (50, 269), (60, 300), (80, 331), (100, 348)], "gain")
    40
    """
    if rule not in KNEES:
        raise UnsupportedError(f"knee: {rule!r:.40} is none of {', '.join(KNEES)}")
    useful = [(units, rate) for units, rate in curve if rate > 0]
    if not useful:
        raise ValueError("a curve needs a rate above 0")
    if rule == "per-unit":
        return max(useful, key=lambda at: (at[1] / at[0], -at[0]))[0]
    if rule == "none":
        return useful[-1][0]
    if rule == "gain":
        return _largest_gain(curve, useful)
    return _most_bent(useful, normalised=rule == "curvature-normalised")


def _largest_gain(curve: Curve, useful: Curve) -> int:
    steps = [
        ((rate - rate_below) / (units - units_below), units)
        for (units_below, rate_below), (units, rate) in pairwise(curve[:-1])
        if rate > rate_below * (1 + LEAST_GAIN)
    ]
    return max(steps, key=lambda step: (step[0], -step[1]), default=(0, useful[0][0]))[1]


def _most_bent(curve: Curve, *, normalised: bool) -> int:
    if len(curve) < 3:
        return curve[0][0]
    wide, high = (curve[-1][0], max(rate for _, rate in curve)) if normalised else (1, 1)
    scaled = [(units / wide, rate / high) for units, rate in curve]
    bends = [_curvature(*scaled[at - 1 : at + 2]) for at in range(1, len(curve) - 1)]
    return curve[bends.index(max(bends)) + 1][0]


def _curvature(before: Place, here: Place, after: Place) -> float:
    """That of the circle through three points."""
    (x0, y0), (x1, y1), (x2, y2) = before, here, after
    area = abs((x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)) / 2
    return 4 * area / (dist(before, here) * dist(here, after) * dist(before, after))
