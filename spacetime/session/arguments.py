"""Checks of a session's and a tenant's options; an error is one line that names option and fix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from spacetime.errors import InvalidInput
from spacetime.policy import PRESETS, Policy

MOST_MS = 1e12  # thirty years: far inside 64-bit nanoseconds
MOST_RATE = 1e9
MOST_MIB = 1e9
MOST_COUNT = 2**31 - 1
MOST_PRIORITY = 2**31 - 1  # what native code holds


def positive(tenant: str, field: str, value: Any, *, most: float) -> float:
    """A positive real number up to `most`; NumPy's will do, texts and truth values will not."""
    if isinstance(value, Real) and not isinstance(value, bool):
        given = float(value)
        if math.isfinite(given) and 0 < given <= most:
            return given
    raise InvalidInput(tenant, field, f"a positive number of at most {most:g}", _shown(value))


def rate_of(tenant: str, value: Any) -> float:
    """A rate in requests a second; 0 of a tenant that is deployed and idle."""
    idle = isinstance(value, Real) and not isinstance(value, bool) and value == 0
    return 0.0 if idle else positive(tenant, "rate_rps", value, most=MOST_RATE)


def optional(tenant: str, field: str, value: Any, *, most: float) -> float | None:
    """A positive real number up to `most`, or None."""
    return None if value is None else positive(tenant, field, value, most=most)


def whole(tenant: str, field: str, value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most:
        return int(value)
    raise InvalidInput(tenant, field, f"a whole number from {least} to {most}", _shown(value))


def decided(tenant: str, value: Any) -> bool | None:
    """`batchable`: True, False, or None where it is left open."""
    if value is None or isinstance(value, bool):
        return value
    raise InvalidInput(tenant, "batchable", "True, False or None", _shown(value))


def priority_of(tenant: str, value: Any) -> int:
    """A priority: a whole number that native code can hold; larger goes first."""
    return whole(tenant, "priority", value, -MOST_PRIORITY, MOST_PRIORITY)


def free_name(value: Any, taken: Any) -> str:
    """A tenant's name: one line of text that no other tenant has; made up where it is None."""
    if value is None:
        return next(n for i in itertools.count() if (n := f"tenant-{i}") not in taken)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidInput("-", "name", "a text of one line that is not empty", _shown(value))
    if value in taken:
        raise InvalidInput(value, "name", "unique in its session", "one already in use")
    return value


@dataclass(frozen=True, slots=True)
class TenantOptions:
    """The options of `Session.add`, checked; those of the model and its inputs aside."""

    name: str
    slo_ms: float | None
    rate_rps: float
    priority: int
    weight: float
    queue_limit: int
    memory_limit: int | None  # bytes of device memory
    batchable: bool | None


def tenant_options(
    name: str,
    *,
    slo_ms: Any,
    rate_rps: Any,
    priority: Any,
    weight: Any,
    queue_limit: Any,
    memory_limit_mib: Any,
    batchable: Any,
) -> TenantOptions:
    """The options of a new tenant; InvalidInput names the first that does not fit."""
    mib = optional(name, "memory_limit_mib", memory_limit_mib, most=MOST_MIB)
    return TenantOptions(
        name,
        optional(name, "slo_ms", slo_ms, most=MOST_MS),
        rate_of(name, rate_rps),
        priority_of(name, priority),
        positive(name, "weight", weight, most=MOST_RATE),
        whole(name, "queue_limit", queue_limit, 1, MOST_COUNT),
        None if mib is None else int(mib * 2**20),
        decided(name, batchable),
    )


def policy_of(value: Any) -> Policy:
    """A preset by name, or the policy itself."""
    if isinstance(value, Policy):
        return value
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    raise InvalidInput("-", "policy", f"a Policy or one of {', '.join(PRESETS)}", _shown(value))


def check_layout(lanes: Any, sizes: Any, priorities: Any) -> None:
    """Checks the types of the options that divide a device. Whether the device has as much as they
    ask for, `device.laid_out` checks."""
    if lanes is not None and not (_integers(lanes) or _lists(lanes)):
        expected = "a whole number, or a list of unit ids for each lane"
        raise InvalidInput("-", "lanes", expected, _shown(lanes))
    for field, value in (("sizes", sizes), ("priorities", priorities)):
        if value is not None and not (_list(value) and len(value)):
            raise InvalidInput("-", field, "a list of whole numbers, one a lane", _shown(value))


def priorities_of(given: Sequence[int] | None, lanes: int, most: int) -> Sequence[int]:
    """The priority of each lane's streams, `most` the highest, 0 where none is given."""
    if given is None:
        return [0] * lanes
    if len(given) != lanes or not all(0 <= p <= most for p in given):
        expected = f"one for each of {lanes} lanes, from 0 to {most}"
        raise InvalidInput("-", "priorities", expected, str(list(given)))
    return given


def _integers(*values: Any) -> bool:
    return all(isinstance(v, Integral) and not isinstance(v, bool) for v in values)


def _list(value: Any) -> bool:
    listed = isinstance(value, (Sequence, range)) and not isinstance(value, (str, bytes))
    return listed and _integers(*value)


def _lists(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return listed and all(map(_list, value))


def _shown(value: Any) -> str:
    """A value as a message quotes it: its beginning, and what it is where that is not plain."""
    text = repr(value)[:60]
    plain = value is None or isinstance(value, (str, bool, int, float, list, tuple))
    return text if plain else f"{type(value).__name__} {text}"
