"""Predicted profiles of devices one does not own: pure arithmetic on layers and device facts.

A layer takes as long as the slower of its arithmetic and its bytes (roofline). Arithmetic comes in
output tiles, one a multiprocessor at a time, so a launch takes whole *waves* of them: one tile more
than fits costs a wave (D-STS Fig. 7: a saw-tooth of period 20 on 80 SMs). Every launch adds a time
of its own. What a device reaches of its datasheet is three constants, a `Calibration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from spacetime.devices.facts import DeviceFacts
from spacetime.devices.mig import MEMORY_SLICES
from spacetime.errors import UnsupportedError
from spacetime.profiles.profile import Point

OPS = ("product", "pairs", "move")
BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1}
# Output tiles that libraries choose from, rows by columns; the fastest for a shape is taken.
TILES = ((256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32))
FEED_BYTES = 64  # an SM reads from L2 in a clock (V100 to H100 whitepapers)
SATURATES = 0.3  # part of the SMs that draws the whole bandwidth: 24 of 84 reach 95 % (RTX A6000)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model, for one input; `count` of them are alike.

    `product`: `groups` products [m, k] x [k, n] with weights: a batch has more rows m. `pairs`:
    products of two values of the input, as in attention: a batch has more of them. `move`: bound
    by memory. `values` are numbers read and written for each input, `weights` those read once.
    """

    op: str
    m: int = 0
    n: int = 0
    k: int = 0
    groups: int = 1
    values: int = 0
    weights: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        sizes = (self.m, self.n, self.k, self.values, self.weights)
        if self.op not in OPS or min(sizes) < 0 or min(self.groups, self.count) < 1:
            raise UnsupportedError(f"layer: {self} is none of {', '.join(OPS)} with sizes from 0")

    @property
    def flops(self) -> int:
        """Floating-point operations for one input; a multiply and an add are two."""
        return 2 * self.m * self.n * self.k * self.groups * self.count


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a device reaches: parts of its peak rate and bandwidth, and µs to launch a kernel.

    `launch_us` None: the device's fact, of a replayed graph. `ahead`: launches overlap what runs,
    as when Python launches one kernel after another; else every launch waits for the one before.
    """

    # Fitted to eleven models on an A100 (bench cost). A large product or copy alone reaches more
    # (on H200 0.8 of bf16's peak, 0.9 of the bandwidth); whole models do not.
    compute: float = 0.6
    bandwidth: float = 0.5
    launch_us: float | None = None
    ahead: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.compute <= 1 and 0 < self.bandwidth <= 1 and (self.launch_us or 0) >= 0):
            raise UnsupportedError(f"calibration: {self} must hold parts from 0 to 1 and a time")


@dataclass(frozen=True, slots=True)
class Granted:
    """What a partition holds: SMs, the peak of one of them, bandwidth, and bytes/µs of L2 an SM."""

    sms: int
    sm_tflops: float
    bandwidth_gbs: float
    feed: float
    itemsize: int

    @property
    def tflops(self) -> float:
        """The peak of all its SMs."""
        return self.sms * self.sm_tflops


def granted(facts: DeviceFacts, kind: str, units: int, *, dtype: str = "fp32") -> Granted:
    """The part of a device that `units` of a kind are, for one dtype.

    A MIG instance owns its memory slices; other kinds draw on the whole memory, as much as their
    SMs can. Raises UnsupportedError for a dtype, kind or size the device does not have.
    """
    if not facts.tflops:
        raise UnsupportedError(f"device: nothing is known to predict {facts.name} by; measure it")
    if dtype not in facts.tflops:
        raise UnsupportedError(
            f"dtype: {facts.name} computes {', '.join(facts.tflops)}, no {dtype}"
        )
    whole = facts.whole(kind)
    if not 1 <= units <= whole:
        raise UnsupportedError(f"units: {units} of kind {kind}; {facts.name} has 1 to {whole}")
    if kind == "mig":
        profile = facts.mig_profile(units)
        sms, part = profile.sms, profile.shape.memory / MEMORY_SLICES
    else:
        sms = max(1, facts.sms * units // whole)
        part = min(1.0, sms / (SATURATES * facts.sms))
    feed = FEED_BYTES * facts.clock_mhz
    rate = facts.tflops[dtype] / facts.sms
    return Granted(sms, rate, part * facts.bandwidth_gbs, feed, BYTES[dtype])


def waves(m: int, n: int, groups: int, tile: tuple[int, int], sms: int) -> int:
    """How often `sms` multiprocessors, one tile each, must begin anew. Source: D-STS §4, Fig. 7."""
    return ceil(ceil(m / tile[0]) * ceil(n / tile[1]) * groups / sms)


def tile_us(k: int, tile: tuple[int, int], on: Granted, calibration: Calibration) -> float:
    """One tile's inner loop: its arithmetic, or reading its two operands, if that is slower."""
    rows, columns = tile
    arithmetic = 2 * rows * columns / (on.sm_tflops * 1e6 * calibration.compute)
    return k * max(arithmetic, (rows + columns) * on.itemsize / on.feed)


def kernel_us(layer: Layer, batch: int, on: Granted, calibration: Calibration) -> float:
    """One launch of a layer at a batch size: the roofline, arithmetic in whole waves."""
    memory = _bytes(layer, batch, on) / (on.bandwidth_gbs * 1e3 * calibration.bandwidth)
    if layer.op == "move":
        return memory
    rows, groups = _sizes(layer, batch)
    return max(
        memory,
        min(
            waves(rows, layer.n, groups, tile, on.sms) * tile_us(layer.k, tile, on, calibration)
            for tile in TILES
        ),
    )


def fluid_us(layer: Layer, batch: int, on: Granted, calibration: Calibration) -> float:
    """The same without waves: what a launch takes from the partition while others fill its gaps."""
    memory = _bytes(layer, batch, on) / (on.bandwidth_gbs * 1e3 * calibration.bandwidth)
    if layer.op == "move":
        return memory
    flops = layer.flops / layer.count * batch
    return max(memory, flops / (on.tflops * 1e6 * calibration.compute))


def _sizes(layer: Layer, batch: int) -> tuple[int, int]:
    """Rows and groups at a batch size."""
    if layer.op == "product":
        return layer.m * batch, layer.groups
    return layer.m, layer.groups * batch


def _bytes(layer: Layer, batch: int, on: Granted) -> float:
    return (layer.values * batch + layer.weights) * on.itemsize


def latency_us(
    layers: Iterable[Layer],
    batch: int,
    on: Granted,
    calibration: Calibration,
    *,
    launch_us: float,
    procs: int = 1,
) -> float:
    """One batch of one of `procs` processes that run side by side on a partition.

    Alone it takes its launches and its kernels; together at least all processes' work.
    """
    launches = alone = shared = 0.0
    for layer in layers:
        launches += layer.count * launch_us
        alone += layer.count * kernel_us(layer, batch, on, calibration)
        shared += layer.count * fluid_us(layer, batch, on, calibration)
    single = max(launches, alone) if calibration.ahead else launches + alone
    return max(single, procs * shared)


def points(
    model: str,
    layers: Sequence[Layer],
    facts: DeviceFacts,
    kind: str,
    *,
    units: Iterable[int],
    batches: Iterable[int],
    procs: Iterable[int] = (1,),
    dtype: str = "fp32",
    calibration: Calibration | None = None,
) -> Iterator[Point]:
    """A predicted point for every units x batch x procs, in that order; ms and inputs/s.

    Raises UnsupportedError for what the device does not have.

    >>> from spacetime.devices.facts import A100_80
    >>> one = Layer("product", m=128, n=1024, k=1024, weights=1024 * 1024)
    >>> found = points("m", [one], A100_80, "mig", units=[1, 7], batches=[8])
    >>> [point.latency_ms > 0 and point.source for point in found]
    ['predicted', 'predicted']
    """
    known = calibration or Calibration()
    launch_us = facts.launch_us if known.launch_us is None else known.launch_us
    sizes = [(size, granted(facts, kind, size, dtype=dtype)) for size in units]
    batches, procs = list(batches), list(procs)
    for size, on in sizes:
        for batch in batches:
            for count in procs:
                ms = latency_us(layers, batch, on, known, launch_us=launch_us, procs=count) / 1e3
                yield Point(
                    model,
                    facts.name,
                    kind,
                    size,
                    batch,
                    count,
                    ms,
                    batch * count / ms * 1e3,
                    "predicted",
                )
