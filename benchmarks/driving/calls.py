"""Calls one after another: how long each takes, and percentiles of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def timed_ns(call: Callable[[], object], times: int) -> list[int]:
    """Calls `times` times; returns the nanoseconds of each call, in order."""
    took_ns = []
    for _ in range(times):
        before = time.perf_counter_ns()
        call()
        took_ns.append(time.perf_counter_ns() - before)
    return took_ns


def percentile(ordered: Sequence[Number], percent: int) -> Number:
    """Returns a percentile of values that are sorted and not empty: always one of them."""
    return ordered[(len(ordered) - 1) * percent // 100]
