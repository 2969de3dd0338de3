"""Checks of what a session is told besides models and inputs; one line names option and fix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from spacetime.core import PRESETS, Policy
from spacetime.errors import InvalidInput

MOST_MS = 1e12  # thirty years: far inside 64-bit nanoseconds
MOST_RATE = 1e9
MOST_COUNT = 2**31 - 1
MOST_PRIORITY = 10**9


def positive(tenant: str, field: str, value: Any, *, most: float, unit: str = "") -> float:
    """A positive real number up to `most`; NumPy's will do, texts and truth values will not."""
    if isinstance(value, Real) and not isinstance(value, bool):
        given = float(value)
        if math.isfinite(given) and 0 < given <= most:
            return given
    raise InvalidInput(tenant, field, f"a positive number{unit} of at most {most:g}", _shown(value))


def optional(tenant: str, field: str, value: Any, *, most: float, unit: str = "") -> float | None:
    """The same, or None."""
    return None if value is None else positive(tenant, field, value, most=most, unit=unit)


def whole(tenant: str, field: str, value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    raise InvalidInput(tenant, field, f"a whole number from {least} to {most}", _shown(value))


def priority_of(tenant: str, value: Any) -> int:
    """Larger goes first."""
    return whole(tenant, "priority", value, -MOST_PRIORITY, MOST_PRIORITY)


def name_of(value: Any, taken: Any) -> str:
    """A tenant's name: one line of text that no other tenant has."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise InvalidInput("-", "name", "a text of one line that is not empty", _shown(value))
    if value in taken:
        raise InvalidInput(value, "name", "unique in its session", "one already in use")
    return value


def policy_of(value: Any) -> Policy:
    """A preset by name, or the policy itself."""
    if isinstance(value, Policy):
        return value
    if isinstance(value, str) and value in PRESETS:
        return PRESETS[value]
    raise InvalidInput("-", "policy", f"a Policy or one of {', '.join(PRESETS)}", _shown(value))


def check_layout(lanes: Any, sizes: Any, priorities: Any) -> None:
    """Types of the options that divide a device; whether it has so much is the device's to say."""
    if lanes is not None and not (_integers(lanes) or _lists(lanes)):
        expected = "a whole number, or a list of unit ids for each lane"
        raise InvalidInput("-", "lanes", expected, _shown(lanes))
    for field, value in (("sizes", sizes), ("priorities", priorities)):
        if value is not None and not (_list(value) and len(value)):
            raise InvalidInput("-", field, "a list of whole numbers, one a lane", _shown(value))


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
