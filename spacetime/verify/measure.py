"""Each partition probed alone and beside a stressor on another one, in turn.

The machine's own noise comes and goes in seconds, so a probe alone and one beside the stressor
follow each other closely, only the two of a round are compared, and the median round counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from statistics import median

from spacetime.verify.under_test import Fed, Ground, Partition

Case = tuple[tuple[int, int], str, str]  # numbers of the two partitions, probe, stressor
SEGMENTS = 5  # of a probe: between two of them it is looked up where the launches run


@dataclass(frozen=True, slots=True)
class ProbeEffort:
    """How many rounds, how many probe launches in each, and which kinds of work."""

    rounds: int
    launches: int
    probes: Sequence[str]
    stressors: Sequence[str]


@dataclass(frozen=True, slots=True)
class Side:
    """A probe's rate (GFLOP/s, or GB/s) and latency: medians over the rounds."""

    rate: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class ProbedPair:
    """One probe on partition `on`, one stressor on partition `by`, by their numbers."""

    on: int
    by: int
    probe: str
    stressor: str
    alone: Side
    beside: Side
    held_frac: float  # of the rate alone
    p50_inflation: float
    p99_inflation: float
    busy_frac: float  # of the time the stressor ran
    looked: int  # how often it was looked up where the launches run
    leaked: int  # how often one of the two was seen outside its partition


@dataclass(frozen=True, slots=True)
class _Probed:
    """One probe: sorted nanoseconds, and how often of how many looks a partition was outside."""

    ns: Sequence[int]
    looked: int = 0
    leaked: int = 0

    def at(self, fraction: float) -> int:
        return self.ns[min(len(self.ns) - 1, int(fraction * len(self.ns)))]


def pairs(
    ground: Ground, effort: ProbeEffort, track: Callable[[Sequence[Case]], Iterable[Case]]
) -> Iterator[ProbedPair]:
    """Every ordered pair of partitions with every probe and stressor; `track` shows progress."""
    ordered = permutations(range(len(ground.partitions)), 2)
    cases = [*product(ordered, effort.probes, effort.stressors)]
    for case in track(cases):
        yield _pair(ground.partitions, case, effort)


def _pair(partitions: Sequence[Partition], case: Case, effort: ProbeEffort) -> ProbedPair:
    (on, by), probe, stressor = case
    probed, stressed = partitions[on], partitions[by]
    alone: list[_Probed] = []
    beside: list[_Probed] = []
    fed: list[Fed] = []
    probed.probe(probe, effort.launches)  # warm: clocks, caches, this pair's memory
    for number in range(effort.rounds):
        for with_stressor in (False, True) if number % 2 else (True, False):
            if with_stressor:
                stressed.start(stressor)
                beside.append(_probe(probed, stressed, probe, effort.launches))
                fed.append(stressed.stop())
            else:
                alone.append(_probe(probed, None, probe, effort.launches))
    return ProbedPair(
        on,
        by,
        probe,
        stressor,
        _side(alone, probed.work(probe)),
        _side(beside, probed.work(probe)),
        held_frac=median(sum(a.ns) / sum(b.ns) for a, b in zip(alone, beside, strict=True)),
        p50_inflation=_inflation(alone, beside, 0.5),
        p99_inflation=_inflation(alone, beside, 0.99),
        busy_frac=median(stress.busy_frac for stress in fed),
        looked=sum(probe.looked for probe in beside),
        leaked=sum(probe.leaked for probe in beside),
    )


def _probe(probed: Partition, stressed: Partition | None, kind: str, launches: int) -> _Probed:
    """One probe in segments; between them both partitions are looked at, unless one is alone."""
    ns: list[int] = []
    looked = leaked = 0
    for _ in range(SEGMENTS):
        ns += probed.probe(kind, max(1, launches // SEGMENTS))
        if stressed is not None:
            outside = [bool(part.where() - part.home) for part in (probed, stressed)]
            looked += len(outside)
            leaked += sum(outside)
    return _Probed(sorted(ns), looked, leaked)


def _side(probes: Sequence[_Probed], work: float) -> Side:
    return Side(
        rate=median(work * 1e9 * len(probe.ns) / sum(probe.ns) for probe in probes),
        p50_us=median(probe.at(0.5) for probe in probes) / 1e3,
        p99_us=median(probe.at(0.99) for probe in probes) / 1e3,
    )


def _inflation(alone: Sequence[_Probed], beside: Sequence[_Probed], fraction: float) -> float:
    both = zip(alone, beside, strict=True)
    return median(b.at(fraction) / a.at(fraction) for a, b in both)
