"""How long a model's launch takes alone, as a formula of batch and size (iGniter, TPDS'23). Pure.

`(k1·b² + k2·b + k3) / (r + k4) + k5` milliseconds for a batch b on r percent of the device: work
that shrinks with its share, and a part that does not. Nine profiled points are enough to fit it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacetime.profiles.profile import Point

LEAST_POINTS = 5  # as many as there are coefficients


@dataclass(frozen=True, slots=True)
class Curve:
    """The coefficients, and the mean relative error on the points they were fitted to."""

    k1: float
    k2: float
    k3: float
    k4: float
    k5: float
    error: float = 0.0

    def ms(self, batch: float, units: float) -> float:
        """The latency of a batch on so many percent."""
        return self.work(batch) / (units + self.k4) + self.k5

    def work(self, batch: float) -> float:
        """The part that shrinks with the share, in percent times milliseconds."""
        return self.k1 * batch**2 + self.k2 * batch + self.k3

    def least_units(self, batch: float, limit_ms: float) -> float:
        """The least percent that takes a batch within a limit; inf where none does."""
        left_ms = limit_ms - self.k5
        return max(0.0, self.work(batch) / left_ms - self.k4) if left_ms > 0 else math.inf


def fit(points: Sequence[Point]) -> Curve | None:
    """The curve of least relative error; None for too few points, or all of one size."""
    if len(points) < LEAST_POINTS or len({point.units for point in points}) < 2:
        return None
    # Of a given k4 the others are linear: a search in one dimension, first wide, then narrow.
    widest = 4 * max(point.units for point in points)
    found = [_given(points, k4) for k4 in (0.0, *np.geomspace(0.1, widest, 40).tolist())]
    best = min(found, key=lambda curve: curve.error)
    around = np.linspace(0.8 * best.k4, 1.25 * best.k4, 31).tolist()
    return min((best, *(_given(points, k4) for k4 in around)), key=lambda curve: curve.error)


def _given(points: Sequence[Point], k4: float) -> Curve:
    batch = np.array([float(point.batch) for point in points])
    share = 1 / (np.array([float(point.units) for point in points]) + k4)
    ms = np.array([point.latency_ms for point in points])
    columns = np.stack([batch**2 * share, batch * share, share, np.ones_like(ms)], axis=1)
    found = np.linalg.lstsq(columns / ms[:, None], np.ones_like(ms), rcond=None)[0]
    error = float(np.mean(np.abs(columns @ found / ms - 1)))
    k1, k2, k3, k5 = (float(value) for value in found)
    return Curve(k1, k2, k3, k4, k5, error)
