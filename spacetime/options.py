"""What `Session.add` is told besides the model: checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from spacetime.errors import InvalidInput


def bytes_of(tenant: str, mib: float | None) -> int | None:
    """Bytes of a memory limit. Raises InvalidInput naming the tenant."""
    if mib is None:
        return None
    if not (math.isfinite(mib) and mib > 0):
        raise InvalidInput(tenant, "memory_limit_mib", "a positive number or None", str(mib))
    return int(mib * 2**20)


def check_options(
    name: str, slo_ms: float | None, rate_rps: float, weight: float, queue_limit: int
) -> None:
    """Raises InvalidInput naming the option that does not fit."""
    positive: Callable[[float], bool] = lambda x: math.isfinite(x) and x > 0  # noqa: E731
    if slo_ms is not None and not positive(slo_ms):
        raise InvalidInput(name, "slo_ms", "a positive number or None", str(slo_ms))
    if not positive(rate_rps):
        raise InvalidInput(name, "rate_rps", "a positive number", str(rate_rps))
    if not positive(weight):
        raise InvalidInput(name, "weight", "a positive number", str(weight))
    if queue_limit < 1:
        raise InvalidInput(name, "queue_limit", "at least 1", str(queue_limit))
