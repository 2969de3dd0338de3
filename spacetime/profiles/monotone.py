"""Monotone smoothing of measured latencies: more inputs take no less, more units no more time.

Noise breaks that order, and a planner that believes noise picks a batch or a partition for it.
Pool adjacent violators is the least-squares answer along one axis (Ayer et al., 1955), here of
logarithms, since noise is a part of a latency; over both axes it is applied in turn, and what is
left is closed by envelopes, which are always in order.

More units can be slower in truth (two cores for a model too small for them). Where that is beyond
the noise of the rounds, each size is smoothed by itself, and whoever asks is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from math import exp, inf, log

from spacetime.profiles.profile import Key, Point

SWEEPS = 50
LEAST_NOISE = 0.05  # of any two measurements, however well their rounds agree
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


def smoothed(points: Iterable[Point], noise: Mapping[Key, float] | None = None) -> list[Point]:
    """The points with monotone latencies, in their order; rates follow.

    Each model, kind, number of processes and of tenants is a grid of its own. noise: how far apart
    the rounds of a point are, as a part of it; without it every disorder is taken for noise.
    """
    points = list(points)
    grids = _grids(points)
    apart = {key for key, grid in grids.items() if noise is not None and _slower(grid, noise)}
    found: dict[Key, float] = {}
    for name, grid in grids.items():
        sizes = sorted({p.units for p in grid}) if name in apart else [None]
        for size in sizes:
            part = {(p.units, p.batch): p for p in grid if size in {None, p.units}}
            made = monotone({at: p.latency_ms for at, p in part.items()})
            found |= {part[at].key: latency for at, latency in made.items()}
    return [_with(point, found[point.key]) for point in points]


def slower_with_units(points: Iterable[Point], noise: Mapping[Key, float]) -> list[str]:
    """Models, with processes and tenants, of which more units are slower beyond the noise."""
    return [
        f"{model}, {procs} procs, {tenants} tenants a launch"
        for (model, _, procs, tenants), grid in _grids(points).items()
        if _slower(grid, noise)
    ]


def _slower(grid: Sequence[Point], noise: Mapping[Key, float]) -> bool:
    def bound(point: Point, other: Point) -> float:
        spread = noise.get(point.key, inf) + noise.get(other.key, inf)
        return point.latency_ms * (1 + LEAST_NOISE + spread)

    return any(
        large.latency_ms > bound(small, large)
        for small, large in permutations(grid, 2)
        if small.batch == large.batch and small.units < large.units
    )


def _grids(points: Iterable[Point]) -> dict[tuple[str, str, int, int], list[Point]]:
    found: dict[tuple[str, str, int, int], list[Point]] = defaultdict(list)
    for point in points:
        found[point.model, point.kind, point.procs, point.tenants].append(point)
    return found


def _with(point: Point, latency_ms: float) -> Point:
    if latency_ms == point.latency_ms:
        return point
    rate = point.batch * point.procs / latency_ms * 1e3
    return replace(point, latency_ms=latency_ms, throughput_rps=rate)
