"""What a neighbour on the same device costs: three models of slowdown, fitted and compared. Pure.

* `Linear`: gpulet's, linear in the L2 and DRAM utilisation of both sides, each measured alone.
* `IGniter`: the closed form of iGniter (TPDS'23): the L2 utilisation of all others lengthens the
  active time, each other process delays every kernel's start, and power above the limit lowers the
  clock.
* `Constant`: the same for every pair.

On public data the linear form hardly beats the constant, and loses to it in the tail. So
`cross_validated` fits all three, and always returns their errors on pairs that were held out. A
planner takes a model as `MeasuredInterference`, with the utilisations of the models it places.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import numpy as np

from spacetime.errors import ProfileError


@dataclass(frozen=True, slots=True)
class Use:
    """What a model uses of a device, measured alone on its partition.

    `l2` and `dram`: utilisation as fractions. For `IGniter` also: `kernels` a launch has, the time
    `active_us` they take together, and the power drawn in W.
    """

    l2: float
    dram: float
    kernels: int = 0
    active_us: float = 0.0
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """One measurement: `model` beside `others` takes `slowdown` times as long as alone."""

    model: str
    own: Use
    others: tuple[Use, ...]
    slowdown: float


class SlowdownModel(Protocol):
    """A model of interference: the factor on the latency of `own` beside `others`, at least 1."""

    def __call__(self, own: Use, others: Sequence[Use]) -> float: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Every neighbour costs the same; none costs nothing."""

    value: float

    def __call__(self, own: Use, others: Sequence[Use]) -> float:
        return max(1.0, self.value) if others else 1.0

    def factor(self, model: str, units: int, other: str, other_units: int) -> float:
        """The same as `Neighbours`: no use needs to be known."""
        return max(1.0, self.value)

    def among(self, model: str, units: int, others: Sequence[tuple[str, int]]) -> float:
        """The same as `Crowd`."""
        return max(1.0, self.value) if others else 1.0


@dataclass(frozen=True, slots=True)
class Linear:
    """gpulet §2.5: `l2_own·l2 + l2_other·l2' + dram_own·dram + dram_other·dram' + constant`.

    Of several neighbours the worst counts.
    """

    l2_own: float
    l2_other: float
    dram_own: float
    dram_other: float
    constant: float

    def __call__(self, own: Use, others: Sequence[Use]) -> float:
        return max((max(1.0, self._beside(own, other)) for other in others), default=1.0)

    def _beside(self, own: Use, other: Use) -> float:
        return (
            self.l2_own * own.l2
            + self.l2_other * other.l2
            + self.dram_own * own.dram
            + self.dram_other * other.dram
            + self.constant
        )


# Coefficients the authors of gpulet published for two devices.
PUBLISHED: Mapping[str, Linear] = {
    "rtx-2080ti": Linear(0.1129, 0.7160, 0.3549, 0.0882, 0.8954),
    "rtx-3080": Linear(-0.1799, 0.0384, 0.1255, -0.0565, 1.0184),
}


@dataclass(frozen=True, slots=True)
class IGniter:
    """iGniter's closed form; the defaults are those of a V100, derived from its public profile.

    `cache`: the active time grows by this much per percent of the others' L2 utilisation.
    `schedule_us` and `schedule_first_us`: what n processes delay each kernel, as
    `schedule_us·n + schedule_first_us`. The clock falls by `clock_mhz_per_w` above `power_limit_w`.
    """

    cache: float = 0.0022
    schedule_us: float = 4.75
    schedule_first_us: float = -9.0
    clock_mhz: float = 1530.0
    clock_mhz_per_w: float = 1.03
    power_idle_w: float = 53.5
    power_limit_w: float = 300.0

    def __call__(self, own: Use, others: Sequence[Use]) -> float:
        if not others:
            return 1.0
        active = 1 + self.cache * 100 * sum(other.l2 for other in others)
        return max(1.0, (active + self.delay(own, len(others))) / self.clock(own, others))

    def delay(self, own: Use, others: int) -> float:
        """What the others' processes delay its kernels, as a part of its active time."""
        if own.active_us <= 0:
            return 0.0
        each_us = max(0.0, self.schedule_us * (others + 1) + self.schedule_first_us)
        return each_us * own.kernels / own.active_us

    def clock(self, own: Use, others: Sequence[Use]) -> float:
        """The clock with all of them running, as a part of the full one."""
        power_w = self.power_idle_w + own.power_w + sum(other.power_w for other in others)
        lost_mhz = self.clock_mhz_per_w * max(0.0, power_w - self.power_limit_w)
        return max(0.1, 1 - lost_mhz / self.clock_mhz)


def fit_constant(pairs: Sequence[MeasuredPair]) -> Constant:
    """The mean slowdown of the pairs. Raises ProfileError where there is none."""
    _require_some(pairs)
    return Constant(fmean(pair.slowdown for pair in pairs))


def fit_linear(pairs: Sequence[MeasuredPair]) -> Linear:
    """Least squares over pairs of one neighbour each. Raises ProfileError where there is none."""
    alone = [pair for pair in pairs if len(pair.others) == 1]
    _require_some(alone)
    features = [
        [pair.own.l2, pair.others[0].l2, pair.own.dram, pair.others[0].dram, 1.0] for pair in alone
    ]
    found = np.linalg.lstsq(np.array(features), [pair.slowdown for pair in alone], rcond=None)[0]
    return Linear(*(float(value) for value in found))


def fit_igniter(pairs: Sequence[MeasuredPair], device: IGniter | None = None) -> IGniter:
    """The effect of L2, by least squares; the device's other coefficients are taken as given."""
    _require_some(pairs)
    device = device or IGniter()
    moved = over = 0.0
    for pair in pairs:
        crowd = 100 * sum(other.l2 for other in pair.others)
        active = pair.slowdown * device.clock(pair.own, pair.others)
        moved += crowd * (active - device.delay(pair.own, len(pair.others)) - 1)
        over += crowd * crowd
    return IGniter(
        moved / over if over else 0.0, device.schedule_us, device.schedule_first_us,
        device.clock_mhz, device.clock_mhz_per_w, device.power_idle_w, device.power_limit_w,
    )  # fmt: skip


def _require_some(pairs: Sequence[MeasuredPair]) -> None:
    if not pairs:
        raise ProfileError("pairs", "must hold at least one measurement of a model beside another")


FITS: Mapping[str, Callable[[Sequence[MeasuredPair]], SlowdownModel]] = {
    "constant": fit_constant, "linear": fit_linear, "igniter": fit_igniter,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model fitted to all pairs, and its relative errors on pairs that were held out."""

    name: str
    slowdown: SlowdownModel
    mean: float
    p90: float
    p95: float
    held_out: int


def cross_validated(
    pairs: Sequence[MeasuredPair], *, by_model: bool = False, repeats: int = 10, seed: int = 0
) -> tuple[Fitted, ...]:
    """Each model fitted to the pairs, best mean error first, with errors of pairs it never saw.

    Held out are 30 % drawn at random, `repeats` times over; with `by_model` all pairs that slow one
    model, for each model in turn. Raises ProfileError for fewer than four pairs, or with `by_model`
    for pairs of one model.
    """
    splits = _by_model(pairs) if by_model else _at_random(pairs, repeats, seed)
    found = [_fitted(name, fit, pairs, splits) for name, fit in FITS.items()]
    return tuple(sorted(found, key=lambda each: each.mean))


Split = tuple[Sequence[MeasuredPair], Sequence[MeasuredPair]]  # fitted to, held out


def _at_random(pairs: Sequence[MeasuredPair], repeats: int, seed: int) -> list[Split]:
    if len(pairs) < 4:
        raise ProfileError("pairs", f"must be at least 4 to hold some out, got {len(pairs)}")
    splits: list[Split] = []
    for repeat in range(repeats):
        mixed = list(pairs)
        random.Random(f"interference/{seed}/{repeat}").shuffle(mixed)
        out = math.ceil(0.3 * len(mixed))
        splits.append((mixed[out:], mixed[:out]))
    return splits


def _by_model(pairs: Sequence[MeasuredPair]) -> list[Split]:
    models = sorted({pair.model for pair in pairs})
    if len(models) < 2:
        raise ProfileError("pairs", "must be of at least 2 models to hold one out")
    return [
        (
            [pair for pair in pairs if pair.model != out],
            [pair for pair in pairs if pair.model == out],
        )
        for out in models
    ]


def _fitted(
    name: str,
    fit: Callable[[Sequence[MeasuredPair]], SlowdownModel],
    pairs: Sequence[MeasuredPair],
    splits: Iterable[Split],
) -> Fitted:
    errors = []
    for known, held_out in splits:
        slowdown = fit(known)
        errors += [abs(slowdown(pair.own, pair.others) / pair.slowdown - 1) for pair in held_out]
    p90, p95 = (float(value) for value in np.quantile(errors, (0.9, 0.95)))
    return Fitted(name, fit(pairs), fmean(errors), p90, p95, len(errors))


class Neighbours(Protocol):
    """What a planner asks: how much longer `model` takes on its units beside another on its own."""

    def factor(self, model: str, units: int, other: str, other_units: int) -> float: ...


class Crowd(Neighbours, Protocol):
    """The same for all that share a device: each of `others` is a model and its units."""

    def among(self, model: str, units: int, others: Sequence[tuple[str, int]]) -> float: ...


@dataclass(frozen=True)
class MeasuredInterference:
    """A model of slowdown as planners ask for it: with the use of every model they place.

    `uses` holds a model's use at its largest batch: the worst a neighbour can be. The use measured
    on the whole device is scaled to a partition's percent, as the released gpulet code does.
    """

    slowdown: SlowdownModel
    uses: Mapping[str, Use]

    def factor(self, model: str, units: int, other: str, other_units: int) -> float:
        """How much longer `model` on `units` percent takes beside `other` on `other_units`.

        Raises ProfileError for a model whose use is not known.
        """
        return self.among(model, units, ((other, other_units),))

    def among(self, model: str, units: int, others: Sequence[tuple[str, int]]) -> float:
        """The same beside several (model, percent). Raises ProfileError as `factor`."""
        return self.slowdown(self.use(model, units), [self.use(*other) for other in others])

    def use(self, model: str, units: float) -> Use:
        """A model's use on so many percent. Raises ProfileError as `factor`."""
        if (use := self.uses.get(model)) is None:
            raise ProfileError("uses", f"{model} has none; measure its L2 and DRAM utilisation")
        part = units / 100
        return Use(use.l2 * part, use.dram * part, use.kernels, use.active_us, use.power_w * part)
