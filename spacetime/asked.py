"""What a session is asked for beside models, checked: limits, objectives, rates, weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence

from spacetime.errors import InvalidInput


def bytes_of(tenant: str, mib: float | None) -> int | None:
    """A limit in MiB as bytes, None where there is none. Raises InvalidInput."""
    if mib is None:
        return None
    if not (math.isfinite(mib) and mib > 0):
        raise InvalidInput(tenant, "memory_limit_mib", "a positive number or None", str(mib))
    return int(mib * 2**20)


def check_options(
    name: str, slo_ms: float | None, rate_rps: float, weight: float, queue_limit: int
) -> None:
    """Raises InvalidInput naming the first that no tenant can have."""
    positive: Callable[[float], bool] = lambda x: math.isfinite(x) and x > 0  # noqa: E731
    if slo_ms is not None and not positive(slo_ms):
        raise InvalidInput(name, "slo_ms", "a positive number or None", str(slo_ms))
    if not positive(rate_rps):
        raise InvalidInput(name, "rate_rps", "a positive number", str(rate_rps))
    if not positive(weight):
        raise InvalidInput(name, "weight", "a positive number", str(weight))
    if queue_limit < 1:
        raise InvalidInput(name, "queue_limit", "at least 1", str(queue_limit))


def free_name(name: str | None, taken: Collection[str]) -> str:
    """The name of a new tenant; one is made up where none is given. Raises InvalidInput."""
    if name is None:
        return next(n for i in itertools.count() if (n := f"tenant-{i}") not in taken)
    if not name:
        raise InvalidInput("-", "name", "a text that is not empty", repr(name))
    if name in taken:
        raise InvalidInput(name, "name", "unique in its session", "one already in use")
    return name


def priorities_of(given: Sequence[int] | None, lanes: int, most: int) -> Sequence[int]:
    """The priority of each lane's streams, `most` the highest, 0 where none is given.

    Raises InvalidInput.
    """
    if given is None:
        return [0] * lanes
    if len(given) != lanes or not all(0 <= p <= most for p in given):
        expected = f"one for each of {lanes} lanes, from 0 to {most}"
        raise InvalidInput("-", "priorities", expected, str(list(given)))
    return given
