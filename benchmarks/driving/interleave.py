"""Timing several ways side by side: A B C A B C, so that a drifting machine favours none.

What counts is each way's best time: other programs on the machine only ever add to it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from spacetime.benchmarks.driving.lanes import Round, elapsed_ns

# After a parallel region the threads of an OpenMP team spin for some milliseconds before they
# sleep. Whoever runs next on their cores would pay for that.
SETTLE_S = 0.008
Times = dict[str, list[float]]  # by way: nanoseconds of one round, one value a repetition


def interleaved(rounds: Mapping[str, Round], *, repetitions: int, target_ns: int) -> Times:
    """Returns the ns of a round of each way; a measurement lasts about `target_ns`.

    The order turns by one way each repetition: every way follows every other equally often.
    """
    counts = {name: _count(round_, target_ns) for name, round_ in rounds.items()}
    times: Times = {name: [] for name in rounds}
    for repetition in range(repetitions):
        for name in turned([*rounds], repetition):
            time.sleep(SETTLE_S)
            elapsed_ns(rounds[name], max(1, counts[name] // 4))
            times[name].append(elapsed_ns(rounds[name], counts[name]) / counts[name])
    return times


def turned(names: Sequence[str], repetition: int) -> list[str]:
    """Returns the names in their order of a repetition: it turns by one each time."""
    first = repetition % len(names) if names else 0
    return [*names[first:], *names[:first]]


def fastest(times: Times) -> str:
    """Returns the way with the least best time."""
    return min(times, key=lambda name: min(times[name]))


def _count(round_: Round, target_ns: int) -> int:
    time.sleep(SETTLE_S)
    elapsed_ns(round_, 1)
    return max(1, round(target_ns / min(elapsed_ns(round_, 1) for _ in range(2))))
