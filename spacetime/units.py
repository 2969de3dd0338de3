"""Conversions between the units people write and the integer nanoseconds used inside."""

from __future__ import annotations

MS = 1_000_000
SECOND = 1_000_000_000


def ns_from_ms(milliseconds: float) -> int:
    """Integer nanoseconds of a duration in milliseconds."""
    return round(milliseconds * MS)


def ms_from_ns(nanoseconds: float) -> float:
    """Milliseconds of a duration in nanoseconds."""
    return nanoseconds / MS
