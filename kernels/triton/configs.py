"""How a product is cut into tiles: the candidates worth timing, best guess first.

Pure arithmetic; imports neither triton nor torch. What was measured to be best is kept by `cache`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal

Precision = Literal["ieee", "tf32x3", "tf32"]
PRECISIONS: tuple[Precision, ...] = ("ieee", "tf32x3", "tf32")

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# Multiply-adds a clock of one SM of an H200 (only their ratios matter); tf32x3 takes three.
RATES: dict[str, int] = {"half": 2048, "tf32": 1024, "tf32x3": 341, "ieee": 128}
BYTES_A_CLOCK = 40  # of one SM, between its parts of HBM and of L2 bandwidth
TILE_CLOCKS = 1500  # to start a tile and to store it


@dataclass(frozen=True, slots=True)
class Problem:
    """One product over slots, as the kernels see it."""

    slots: int
    points: int  # rows of M in each slot
    outputs: int  # N, of one group
    channels: int  # of one group
    taps: int = 1
    groups: int = 1
    itemsize: int = 4  # bytes of an element
    precision: Precision = "tf32x3"  # of float32; smaller types have one way only

    @property
    def rate(self) -> int:
        """Multiply-adds a clock of one SM."""
        return RATES["half" if self.itemsize == 2 else self.precision]


@dataclass(frozen=True, slots=True)
class Config:
    """Tile sizes and how a program runs them; a depthwise convolution has no block_k."""

    block_m: int
    block_n: int
    block_k: int = 1
    warps: int = 4
    stages: int = 1
    programs_per_sm: int = 1
    splits: int = 1  # of K, summed by a second launch in a fixed order

    @property
    def name(self) -> str:
        """Short and complete, for tables and caches; `named` reads it."""
        tile = f"{self.block_m}x{self.block_n}x{self.block_k}"
        return f"{tile} w{self.warps} s{self.stages} p{self.programs_per_sm} k{self.splits}"

    def gathered(self, problem: Problem) -> int:
        """gathered(problem): whole slots in one tile."""
        return max(1, min(problem.slots, self.block_m // problem.points))

    def tiles(self, problem: Problem) -> int:
        """tiles(problem): of every slot with a row of its own, the most there can be."""
        across = -(-problem.outputs // self.block_n) * problem.groups * self.splits
        return problem.slots * -(-problem.points // self.block_m) * across

    def steps(self, problem: Problem) -> int:
        """steps(problem): trips of the loop over K in one tile."""
        if problem.taps > 1 and problem.channels < self.block_k:
            trips = -(-problem.taps * problem.channels // self.block_k)
        else:
            trips = problem.taps * -(-problem.channels // self.block_k)
        return -(-trips // self.splits)

    def shared_bytes(self, itemsize: int) -> int:
        """shared_bytes(itemsize): of one program, an upper bound: operands and the stored tile."""
        operands = self.stages * (self.block_m + self.block_n) * self.block_k * itemsize
        return operands + (self.block_m + 8) * (self.block_n + 8) * 4 // 2 + 1024


def named(name: str) -> Config:
    """named(name): the Config that has this name; ValueError when it is none."""
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+) w(\d+) s(\d+) p(\d+) k(\d+)", name)
    if found is None:
        raise ValueError(f"config: {name!r} is not like '64x64x32 w4 s3 p1 k1'")
    return Config(*map(int, found.groups()))


@cache
def candidates(
    problem: Problem, *, sms: int, capability: int = 90, most: int = 6
) -> tuple[Config, ...]:
    """candidates(problem, sms, capability): configurations to time, the best guess first.

    `sms` of the partition; `capability` 80, 90, ... bounds the shared memory. Never empty.
    """
    limit = SHARED_BYTES.get(capability, min(SHARED_BYTES.values()))
    fitting = [c for c in _all(problem, sms) if c.shared_bytes(problem.itemsize) <= limit]
    ranked = sorted(fitting, key=lambda c: (_clocks(c, problem, sms), -c.block_k, -c.stages))
    # Tiles of other shapes tell a measurement more than other depths of the same tile.
    shapes = {(c.block_m, c.block_n, c.splits): c for c in reversed(ranked)}
    kept = set(shapes.values())
    return tuple(c for c in ranked if c in kept)[:most]


def depthwise_candidates(points: int, outputs: int) -> tuple[Config, ...]:
    """depthwise_candidates(points, outputs): pixels x channels of a tile, the best guess first."""
    wide = 64 if outputs >= 64 else max(8, _power(outputs))
    tall = min(32, max(8, _power(points)))
    found = (
        Config(tall, wide, programs_per_sm=4),
        Config(max(8, tall // 2), min(128, 2 * wide), programs_per_sm=4),
        Config(max(8, tall // 2), wide, programs_per_sm=8),
        Config(tall, max(8, wide // 2), warps=2, programs_per_sm=8),
    )
    return tuple(dict.fromkeys(found))


def _all(problem: Problem, sms: int) -> Iterator[Config]:
    """Tiles not much larger than the problem, split along K only where SMs would idle."""
    ieee = problem.itemsize == 4 and problem.precision == "ieee"
    deep = (16,) if ieee else (32,) if problem.itemsize == 4 else (32, 64)
    three = problem.itemsize == 4 and problem.precision == "tf32x3"
    most = 8192 if three else 16384  # three products hold more in registers
    rows = [b for b in (16, 32, 64, 128) if b <= max(16, _power(problem.points))]
    columns = [b for b in (16, 32, 64, 128) if b <= max(16, _power(problem.outputs))]
    for m, n, k in product(rows, columns, deep):
        if m * n > most:
            continue
        warps = 8 if m * n > (4096 if most == 8192 else 8192) else 4
        stages = (2, 3) if ieee else (3, 4)
        for stage, programs in product(stages, (1, 2, 4)):
            config = Config(m, n, k, warps, stage, programs)
            yield config
            yield from _split(config, problem, sms)


def _split(config: Config, problem: Problem, sms: int) -> Iterator[Config]:
    for splits in (2, 4, 8):
        whole = config.tiles(problem) * splits <= 2 * sms
        if whole and config.steps(problem) >= 8 * splits:
            yield replace(config, splits=splits)


def _clocks(config: Config, problem: Problem, sms: int) -> float:
    """A rough time: rounds of tiles, each bound by arithmetic or by reading its operands."""
    resident = config.programs_per_sm
    if resident * config.shared_bytes(problem.itemsize) > 200 * 1024:
        return float("inf")
    rounds = -(-config.tiles(problem) // (sms * resident))
    area = config.block_m * config.block_n
    # Small tiles load more for each product; below 64 x 32 tensor cores are not even filled.
    compute = (max(area, 64 * 32) + 1024) * config.block_k / problem.rate
    read = (config.block_m + config.block_n) * config.block_k * problem.itemsize / BYTES_A_CLOCK
    # Programs of one SM share its arithmetic and bandwidth; one hides what another waits for.
    step = resident * max(compute, read)
    latency = 600 / config.stages if resident == 1 else 300 / config.stages
    return rounds * (config.steps(problem) * max(step, latency) + TILE_CLOCKS) + (
        4000 if config.splits > 1 else 0
    )


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()
