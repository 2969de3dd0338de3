"""Rates that change: piecewise constant, by tenant; a day and bursts drawn by a seed. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from spacetime.errors import UnsupportedError
from spacetime.units import SECOND
from spacetime.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class RateTrace:
    """`rates[step][tenant]`, inputs a second, each in force for `step_s` seconds."""

    step_s: float
    rates: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not 0 < self.step_s < math.inf:
            raise UnsupportedError(f"step_s: must be above 0 and finite, got {self.step_s}")
        if not self.rates or len({len(each) for each in self.rates}) > 1:
            raise UnsupportedError("rates: must have a step, and as many tenants in every one")
        if not all(0 <= rate < math.inf for each in self.rates for rate in each):
            raise UnsupportedError("rates: must be 0 or positive, and finite")

    @property
    def step_ns(self) -> int:
        """How long a step is."""
        return round(self.step_s * SECOND)

    @property
    def end_ns(self) -> int:
        """When the last step ends."""
        return self.step_ns * len(self.rates)

    def at(self, time_ns: int) -> tuple[float, ...]:
        """Rates at an instant; from the end on those of the last step."""
        return self.rates[min(time_ns // self.step_ns, len(self.rates) - 1)]

    def highest(self, from_ns: int = 0, until_ns: int | None = None) -> tuple[float, ...]:
        """By tenant, the highest rate in force in [from, until)."""
        until = self.end_ns if until_ns is None else until_ns
        first, last = from_ns // self.step_ns, -(-until // self.step_ns)
        steps = self.rates[first : max(last, first + 1)] or self.rates[-1:]
        return tuple(map(max, zip(*steps, strict=True)))


def diurnal(
    workload: Workload,
    *,
    seconds: float,
    seed: int = 0,
    step_s: float = 5.0,
    low: float = 0.25,
    noise: float = 0.05,
) -> RateTrace:
    """One day in `seconds`: every tenant swings between `low` and 1 times its rate.

    Tenants peak up to a tenth of a day apart; each step strays by a factor of deviation `noise`.
    """
    draw = random.Random(f"diurnal/{seed}")
    shifts = [draw.uniform(-0.05, 0.05) for _ in workload.tenants]
    steps = round(seconds / step_s)
    return RateTrace(
        step_s,
        tuple(
            tuple(
                tenant.rate_rps * _day(step / steps + shift, low) * max(draw.gauss(1, noise), 0.1)
                for tenant, shift in zip(workload.tenants, shifts, strict=True)
            )
            for step in range(steps)
        ),
    )


def _day(part: float, low: float) -> float:
    """Lowest at the start of a day, 1 in the middle."""
    return low + (1 - low) * (1 - math.cos(2 * math.pi * part)) / 2


def bursty(
    workload: Workload,
    *,
    seconds: float,
    seed: int = 0,
    step_s: float = 5.0,
    low: float = 0.4,
    burst_s: float = 60.0,
    bursts: int = 3,
) -> RateTrace:
    """Every tenant at `low` times its rate, and `bursts` times on average at all of it.

    A burst begins without warning, each tenant's on its own, and lasts `burst_s` on average.
    """
    draw = random.Random(f"bursty/{seed}")
    steps = round(seconds / step_s)
    levels = [_bursts(draw, steps, burst_s / step_s, bursts, low) for _ in workload.tenants]
    return RateTrace(
        step_s,
        tuple(
            tuple(
                tenant.rate_rps * level[step]
                for tenant, level in zip(workload.tenants, levels, strict=True)
            )
            for step in range(steps)
        ),
    )


def _bursts(draw: random.Random, steps: int, length: float, bursts: int, low: float) -> list[float]:
    level, high = [], False
    for _ in range(steps):
        chance = 1 / length if high else bursts / max(steps - bursts * length, 1)
        high ^= draw.random() < chance
        level.append(1.0 if high else low)
    return level
