"""How a product is cut into tiles: the candidates worth timing, best guess first.

Pure arithmetic; this imports neither Triton nor PyTorch. `cache` keeps what was measured to be
best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal

Precision = Literal["ieee", "tf32x3", "tf32"]

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
REGISTERS = 65536  # of one SM; a thread has at most 255
# Multiply-adds a clock of one SM of an H200 (only their ratios matter); tf32x3 takes three.
RATES: dict[str, int] = {"half": 2048, "tf32": 1024, "tf32x3": 341, "ieee": 128}
BYTES_A_CLOCK = 40  # of one SM, between its parts of HBM and of L2 bandwidth
TILE_CLOCKS = 1500  # to start a tile and to store it
# Rows, columns and splits of the tile that tf32x3 is timed with first: of all tiles it splits the
# fewest values in two for each product.
TALL = (128, 64, 1)
BARRIERS, BARRIER_CLOCKS = 2, 40  # in one step, and clocks of one


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
    def way(self) -> str:
        """How it is multiplied, a key of RATES."""
        return "half" if self.itemsize == 2 else self.precision

    @property
    def rate(self) -> int:
        """Multiply-adds of one SM in a clock."""
        return RATES[self.way]


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a tile and how a program runs it; a depthwise convolution has no block_k."""

    block_m: int
    block_n: int
    block_k: int = 1
    warps: int = 4
    stages: int = 1
    programs_per_sm: int = 1
    splits: int = 1  # of K, summed by a second launch in a fixed order

    @property
    def name(self) -> str:
        """A short and complete name, for tables and caches; `named` reads it."""
        tile = f"{self.block_m}x{self.block_n}x{self.block_k}"
        return f"{tile} w{self.warps} s{self.stages} p{self.programs_per_sm} k{self.splits}"

    def gathered(self, problem: Problem) -> int:
        """How many whole slots one tile holds."""
        return max(1, min(problem.slots, self.block_m // problem.points))

    def tiles(self, problem: Problem) -> int:
        """How many tiles there are where every slot has a row of its own: the most there can be."""
        across = -(-problem.outputs // self.block_n) * problem.groups * self.splits
        return problem.slots * -(-problem.points // self.block_m) * across

    def steps(self, problem: Problem) -> int:
        """How often the loop over K runs for one tile."""
        if problem.taps > 1 and problem.channels < self.block_k:
            trips = -(-problem.taps * problem.channels // self.block_k)
        else:
            trips = problem.taps * -(-problem.channels // self.block_k)
        return -(-trips // self.splits)

    def resident(self, problem: Problem, shared_limit: int) -> int:
        """How many programs one SM holds at once; 0 where none fits.

        Registers, shared memory and warps bound it. A value that finds no register goes to memory.
        """
        registers = self.registers(problem)
        if registers > 255:
            return 0
        by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * self.warps)
        by_shared = shared_limit // self.shared_bytes(problem.itemsize)
        return min(by_registers, by_shared, 64 // self.warps, self.programs_per_sm)

    def registers(self, problem: Problem) -> int:
        """Registers of one thread, about as many as ptxas gives it on sm_90."""
        sums = self.block_m * self.block_n / (32 * self.warps)
        if problem.way == "ieee":
            return round(40 + 2.75 * sums)
        if problem.way != "tf32x3":
            return round(50 + 1.5 * sums)
        own, others = self._fragments()
        return round(30 + 2 * sums + 4 * own + (others if self.block_m < 64 else 0))

    def instructions(self, problem: Problem) -> float:
        """Instructions that each warp issues in one step, about as compiled for sm_90."""
        threads = 32 * self.warps
        sums = self.block_m * self.block_n / threads
        if problem.way == "ieee":
            return 60 + 1.4 * sums + sums * self.block_k
        copies = (self.block_m + self.block_n) * self.block_k * problem.itemsize / 16 / threads
        split = sum(self._fragments()) if problem.way == "tf32x3" else 0
        return 60 + 6 * copies + 9 * split  # each value is split into two

    def _fragments(self) -> tuple[float, float]:
        """How many elements of the two operands a thread holds.

        From 64 rows on, four warps have 16 rows each of the first operand, and all threads share
        the second. Below, each warp has its part of the rows.
        """
        if self.block_m >= 64:
            along = min(self.warps, self.block_m // 16) // 4 * 4
            second = self.block_n * self.block_k / (32 * self.warps)
        else:
            along = min(self.warps, self.block_m // 16)
            second = self.block_n * self.block_k * along / (32 * self.warps)
        return self.block_m * self.block_k / along / 32, second

    def shared_bytes(self, itemsize: int) -> int:
        """Bytes of shared memory of one program, an upper bound: operands and the stored tile."""
        operands = self.stages * (self.block_m + self.block_n) * self.block_k * itemsize
        return operands + (self.block_m + 8) * (self.block_n + 8) * 4 // 2 + 1024


def named(name: str) -> Config:
    """The Config of this name. Raises ValueError where it is no name of a Config."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+) w(\d+) s(\d+) p(\d+) k(\d+)", name)
    if match is None:
        raise ValueError(f"config: {name!r} is not like '64x64x32 w4 s3 p1 k1'")
    return Config(*map(int, match.groups()))


@cache
def candidates(
    problem: Problem, *, sms: int, capability: int = 90, most: int = 6
) -> tuple[Config, ...]:
    """Configurations to time, the best guess first; never empty.

    `problem`: the product.
    `sms`: of the partition.
    `capability`: of the device, 80, 90 and so on; it bounds the shared memory.
    `most`: how many to return at most.
    """
    limit = SHARED_BYTES.get(capability, min(SHARED_BYTES.values()))
    fitting = [c for c in _all(problem, sms) if c.shared_bytes(problem.itemsize) <= limit]
    clocks = {c: _clocks(c, problem, sms, limit) for c in fitting}
    ranked = sorted(fitting, key=lambda c: (clocks[c], -c.block_k, -c.stages))
    # One candidate for each shape: a measurement learns more from other shapes than other depths.
    shapes = {(c.block_m, c.block_n, c.splits): c for c in reversed(ranked)}
    kept = set(shapes.values())
    best = [c for c in ranked if c in kept]
    if problem.way == "tf32x3":
        best.sort(key=lambda c: (c.block_m, c.block_n, c.splits) != TALL or c.tiles(problem) < sms)
    return tuple(best[:most])


def depthwise_candidates(points: int, outputs: int) -> tuple[Config, ...]:
    """Configurations of pixels x channels for a depthwise convolution, the best guess first."""
    wide = 64 if outputs >= 64 else max(8, _power(outputs))
    tall = min(32, max(8, _power(points)))
    configs = (
        Config(tall, wide, programs_per_sm=4),
        Config(max(8, tall // 2), min(128, 2 * wide), programs_per_sm=4),
        Config(max(8, tall // 2), wide, programs_per_sm=8),
        Config(tall, max(8, wide // 2), warps=2, programs_per_sm=8),
    )
    return tuple(dict.fromkeys(configs))


def _all(problem: Problem, sms: int) -> Iterator[Config]:
    """Tiles not much larger than the problem, split along K only where SMs would idle."""
    ieee = problem.itemsize == 4 and problem.precision == "ieee"
    deep = (16,) if ieee else (32,) if problem.itemsize == 4 else (32, 64)
    three = problem.itemsize == 4 and problem.precision == "tf32x3"
    rows = [b for b in (16, 32, 64, 128) if b <= max(16, _power(problem.points))]
    columns = [b for b in (16, 32, 64, 128) if b <= max(16, _power(problem.outputs))]
    for m, n, k, warps in product(rows, columns, deep, (4, 8)):
        # Two warpgroups on the same 64 rows hand each other what they split, at 18 barriers a step.
        if warps == 8 and (m * n < 4096 or (three and m < 128)):
            continue
        stages = (2, 3) if ieee else (3, 4)
        for stage, programs in product(stages, (1, 2, 3, 4)):
            config = Config(m, n, k, warps, stage, programs)
            yield config
            yield from _split(config, problem, sms)


def _split(config: Config, problem: Problem, sms: int) -> Iterator[Config]:
    """The same tile with K split into parts, where that gives idle SMs work."""
    for splits in (2, 4, 8):
        whole = config.tiles(problem) * splits <= 2 * sms
        if whole and config.steps(problem) >= 8 * splits:
            yield replace(config, splits=splits)


def _clocks(config: Config, problem: Problem, sms: int, shared_limit: int) -> float:
    """A rough time in clocks: rounds of tiles, each bound by issuing, by arithmetic or by its
    operands.
    """
    resident = config.resident(problem, shared_limit)
    if resident < config.programs_per_sm:
        return float("inf")  # it runs as the config with fewer programs does, or not at all
    rounds = -(-config.tiles(problem) // (sms * resident))
    area = config.block_m * config.block_n
    issue = config.instructions(problem) * config.warps / 4
    # A tile below 64 x 32 does not fill the tensor cores, so it takes as long as one of that size.
    compute = max(area, 64 * 32) * config.block_k / problem.rate
    read = (config.block_m + config.block_n) * config.block_k * problem.itemsize / BYTES_A_CLOCK
    # One program splits, then multiplies, then waits; programs of one SM do so beside each other.
    alone = issue + compute if problem.way == "tf32x3" else max(issue, compute)
    alone += BARRIERS * BARRIER_CLOCKS + 600 / config.stages
    step = max(resident * max(issue, compute, read), alone)
    return rounds * (config.steps(problem) * step + TILE_CLOCKS) + (
        4000 if config.splits > 1 else 0
    )


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()
