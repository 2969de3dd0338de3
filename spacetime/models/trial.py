"""A model tried on inputs that would show a fault, and what it answers to each sample alone.

Its own answers, sample by sample, are what everything faster is held against: a program at every
batch size it will run at, a sample among extreme neighbours, values that are no numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spacetime.fusion import Exported, Ranges, doubt, rows_of, with_extremes
from spacetime.models.flat import FlatCall

ORDINARY = 2.0**16  # up to this size inputs are ordinary: tried, and safe from overflow
TOLERANCE = 1e-3  # between one order of summation and another, of a row's largest value
_SMALL = 0.02  # a row far below the others counts as that much of their median


@dataclass(frozen=True, slots=True)
class Trial:
    """Samples that differ, and the model's answer to each of them alone.

    inputs: one tensor `[count, ...]` for each input. answers: one tensor `[count, ...]` for each
    output.
    """

    inputs: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]

    def rows(self, chosen: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Some of the samples, in that order, and their answers."""
        order = torch.tensor(chosen)
        return [x[order.to(x.device)] for x in self.inputs], [
            y[order.to(y.device)] for y in self.answers
        ]

    def fault(self, call: FlatCall, sizes: Sequence[int]) -> str:
        """Where `call` answers a batch otherwise than the model its samples; empty if nowhere.

        Each size is tried with the first samples in an order of its own, and once with every
        sample but one extreme.
        """
        count = len(self.inputs[0])
        for size in sizes:
            order = [(at * 5 + size) % count if count % 5 else at % count for at in range(size)]
            inputs, expected = self.rows(order)
            if not same_rows(_answered(call, inputs), expected):
                return f"in a batch of {size} its answers differ from those to each sample alone"
        return self._beside_extremes(call, max(sizes, default=1))

    def _beside_extremes(self, call: FlatCall, size: int) -> str:
        size = min(size, len(self.inputs[0]))
        if size < 2 or not any(x.is_floating_point() for x in self.inputs):
            return ""
        keep = size // 2
        inputs, expected = self.rows(range(size))
        for batch in with_extremes(inputs, keep):
            got = _answered(call, batch)
            if got is not None:
                got = [y[keep : keep + 1] if len(y) == size else y for y in got]
            if not same_rows(got, [y[keep : keep + 1] for y in expected]):
                return "beside extreme samples its answer to a sample differs"
        return ""


def tried(flat: FlatCall, example: Sequence[Tensor], within: Ranges, count: int) -> Trial:
    """The model's answers to `count` samples that differ, each asked alone.

    Where the model refuses numbers that its graph seemed to allow, the example's own are taken.
    Raises what the model raises on its example.
    """
    for values in (within, within.narrowed()):
        # Whatever a model raises on values it does not take.
        with contextlib.suppress(Exception):
            return _trial(flat, rows_of(example, values, count, seed=count))
    repeats = -(-count // len(example[0]))
    return _trial(flat, [torch.cat([x] * repeats)[:count] for x in example])


def _trial(flat: FlatCall, inputs: Sequence[Tensor]) -> Trial:
    count = len(inputs[0])
    with torch.no_grad():
        alone = [flat(*(x[at : at + 1].clone() for x in inputs)) for at in range(count)]
    return Trial(tuple(inputs), tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))


def taken_whole(flat: FlatCall, example: Sequence[Tensor], within: Ranges) -> list[list[Tensor]]:
    """Batches of several sizes that the model takes, for one whose requests run alone.

    It may take none but its example's.
    """
    sizes = dict.fromkeys((len(example[0]), 1, 2, 3))
    batches = [rows_of(example, within, size, seed=size) for size in sizes]
    return [b for b in batches if _answered(flat, b) is not None] or [[*example]]


def alike(flat: FlatCall, call: FlatCall, batches: Sequence[Sequence[Tensor]]) -> bool:
    """Whether `call` answers these batches as the model does, and raises where that raises."""
    for batch in batches:
        expected, got = _answered(flat, batch), _answered(call, batch)
        if (got is None) != (expected is None):
            return False
        if expected is not None and not same_rows(got, expected):
            return False
    return True


def keeps_what_is_no_number(flat: FlatCall, call: FlatCall, inputs: Sequence[Tensor]) -> bool:
    """Whether `call` returns NaN and infinities where the model does: some fast layers do not."""
    values = (float("nan"), float("inf"), -float("inf"))
    return alike(flat, call, [[_with_one(x, value) for x in inputs] for value in values])


def holds_to_the_ordinary(flat: FlatCall, call: FlatCall, inputs: Sequence[Tensor]) -> bool:
    """Whether `call` answers as the model up to the largest inputs that count as ordinary."""
    return alike(flat, call, [[_scaled(x) if x.is_floating_point() else x for x in inputs]])


def ordinary(leaves: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite and of a size at which nothing overflows."""
    for x in leaves:
        if x.is_floating_point():
            low, high = torch.aminmax(x)
            if not (float(low) >= -ORDINARY and float(high) <= ORDINARY):  # NaN is neither
                return False
    return True


def same_rows(
    got: Sequence[Tensor] | None, expected: Sequence[Tensor], tolerance: float = TOLERANCE
) -> bool:
    """Equal row by row, within `tolerance` of each row's own size; NaN equals NaN."""
    return (
        got is not None
        and len(got) == len(expected)
        and all(_same(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    )


def _same(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if not (got.is_floating_point() or got.is_complex()):
        return bool(torch.equal(got, expected))
    if not got.numel():
        return True
    wide = torch.complex128 if got.is_complex() else torch.float64
    a, b = (y.detach().to(wide).reshape(len(y), -1) for y in (got, expected))
    tolerance = max(tolerance, 16 * torch.finfo(got.dtype).eps)
    size = torch.where(b.isfinite(), b.abs(), 0.0).amax(1, keepdim=True)
    size = torch.maximum(size, _SMALL * size.median())
    near = a.isfinite() & b.isfinite() & ((a - b).abs() <= tolerance * (size + b.abs()))
    return bool((near | (a == b) | (a.isnan() & b.isnan())).all())


def _answered(call: FlatCall, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """What `call` returns; None where it raises, as what runs elsewhere may not."""
    try:
        with torch.no_grad():
            return call(*(x.clone() for x in inputs))
    except Exception:
        return None


def _with_one(x: Tensor, value: float) -> Tensor:
    """Each row with one entry of that value, at a place of its own."""
    changed = x.clone()
    if x.is_floating_point() and x[0].numel():
        flat = changed.view(len(x), -1)
        for row in range(len(x)):
            flat[row, (row * 7 + 3) % flat.shape[1]] = value
    return changed


def _scaled(x: Tensor) -> Tensor:
    size = float(torch.nan_to_num(x.abs().float()).max()) or 1.0
    return (x.double() * (min(ORDINARY, torch.finfo(x.dtype).max) / size)).to(x.dtype)


def why_alone(exported: Exported, batchable: bool | None) -> str:
    """Why requests may not share a call, by the graph or the owner's word; empty if they may."""
    if batchable is False:
        return "its owner says batchable=False"
    reason = None if batchable else doubt(exported)
    return f"not proven that samples are apart: {reason}" if reason is not None else ""
