"""Monotone smoothing of measured latencies: more inputs take no less, more units no more time.

Noise breaks that order, and a planner that believes noise picks a batch or a partition for it.
Pool adjacent violators is the least-squares answer along one axis (Ayer et al., 1955), here of
logarithms, since noise is a part of a latency; over both axes it is applied in turn, and what is
left is closed by envelopes, which are always in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import exp, log

from spacetime.profile import Point

SWEEPS = 50
Grid = Mapping[tuple[int, int], float]  # by (units, batch)


def pooled(values: Sequence[float]) -> list[float]:
    """The closest (least squares) sequence that never falls: pool adjacent violators.

    >>> pooled([1, 3, 2, 4])
    [1.0, 2.5, 2.5, 4.0]
    """
    blocks: list[tuple[float, int]] = []  # mean, and how many values it stands for
    for value in values:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean = (before * many + mean * count) / (many + count)
            count += many
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]


def monotone(latency: Grid) -> dict[tuple[int, int], float]:
    """Latencies by (units, batch), made to rise with the batch and to fall with the units.

    Values in order already stay as they are; none leaves the range of what was given.
    """
    found = {key: log(value) for key, value in latency.items()}
    for _ in range(SWEEPS):
        before = dict(found)
        _along(found, lambda key: key[0], lambda key: key[1])
        _along(found, lambda key: key[1], lambda key: -key[0])
        if found == before:
            break
    closed = {key: _between(found, *key) for key in found}
    return {k: v if closed[k] == log(v) else exp(closed[k]) for k, v in latency.items()}


def _along(
    found: dict[tuple[int, int], float],
    line: Callable[[tuple[int, int]], int],
    place: Callable[[tuple[int, int]], int],
) -> None:
    """Pools every line of the grid in the order of `place`."""
    lines: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for key in sorted(found, key=place):
        lines[line(key)].append(key)
    for keys in lines.values():
        found.update(zip(keys, pooled([found[key] for key in keys]), strict=True))


def _between(found: Grid, units: int, batch: int) -> float:
    """Halfway between the largest value that has to be below and the smallest that may be above."""
    below = max(v for (u, b), v in found.items() if u >= units and b <= batch)
    above = min(v for (u, b), v in found.items() if u <= units and b >= batch)
    return (below + above) / 2


def smoothed(points: Iterable[Point]) -> list[Point]:
    """The points with monotone latencies, in their order; rates follow.

    Each model, kind, number of processes and of tenants is a grid of its own.
    """
    points = list(points)
    grids: dict[tuple[str, str, int, int], dict[tuple[int, int], float]] = defaultdict(dict)
    for point in points:
        grids[_grid(point)][point.units, point.batch] = point.latency_ms
    found = {key: monotone(grid) for key, grid in grids.items()}
    return [_with(point, found[_grid(point)][point.units, point.batch]) for point in points]


def _grid(point: Point) -> tuple[str, str, int, int]:
    return point.model, point.kind, point.procs, point.tenants


def _with(point: Point, latency_ms: float) -> Point:
    if latency_ms == point.latency_ms:
        return point
    rate = point.batch * point.procs / latency_ms * 1e3
    return replace(point, latency_ms=latency_ms, throughput_rps=rate)
