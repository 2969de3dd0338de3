"""Confidence intervals of a mean over independent replications. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t by degrees of freedom, from any table; 1.96 is the limit.
T95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)
T95_BEYOND = 2.042  # beyond the table its last value: at most 4 % too wide


@dataclass(frozen=True, slots=True)
class Interval:
    """`mean` ± `half` holds the true mean with 95 % confidence; `half` is None for one value."""

    mean: float
    half: float | None


def interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean of independent values, at least one.

    >>> interval([1.0, 1.0, 1.0])
    Interval(mean=1.0, half=0.0)
    """
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return Interval(mean, None)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    t = T95[count - 2] if count - 2 < len(T95) else T95_BEYOND
    return Interval(mean, t * math.sqrt(variance / count))
