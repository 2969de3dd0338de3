"""Devices as data: what planners and cost models know of a device without having one.

Rates are dense peaks (no sparsity) at the boost clock, of the vendor's datasheets; a comment says
where a figure was measured. `launch_us` is what a kernel launch of a replayed graph adds to the
time on the device; it is an estimate wherever no source is given.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from spacetime.devices.mig import (
    DOUBLE_MEMORY,
    NARROW,
    SHAPES,
    MigGeometry,
    MigProfile,
    geometry_of,
)
from spacetime.errors import UnsupportedError

MIB_PER_GIB = 1024
# nvidia-smi's ids, the same on every device of the User Guide's tables.
PROFILE_IDS = {1: 19, 2: 14, 3: 9, 4: 5, 7: 0}
DOUBLE_ID = 15


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device: SMs, boost clock, dense peak rates by dtype, memory system, MIG profiles.

    tflops: from a dtype (`fp32`, `tf32`, `fp16`, `bf16`, `fp8`, `int8`) to TFLOP/s, of integers to
    TOP/s; a dtype that the device lacks is absent.
    bandwidth_gbs: of its memory, in 10^9 bytes a second.
    mig: its profiles, empty where the device has no MIG.
    Of a CPU package only `cores` is known: SMs, rates and bandwidth are 0, memory has no bound.
    """

    name: str
    architecture: str
    sms: int
    clock_mhz: int
    tflops: MappingProxyType[str, float]
    bandwidth_gbs: float
    l2_mib: float
    memory_gib: float
    launch_us: float
    mig: tuple[MigProfile, ...] = field(default=())
    cores: int = 0

    def mig_profile(self, units: int) -> MigProfile:
        """Returns the profile of `units` compute slices, not the one of double memory.

        Raises UnsupportedError where the device has none of that size.
        """
        for profile in self.mig:
            if profile.units == units and profile.shape == self.geometry.shape(units):
                return profile
        raise UnsupportedError(f"{self.name} has no MIG instance of {units} compute slices")

    @property
    def geometry(self) -> MigGeometry:
        """How MIG instances may lie on the device."""
        return geometry_of(self.mig)

    def whole(self, kind: str) -> int:
        """Returns the size of the whole device in units of a partition kind.

        `mig`: compute slices, mostly 7; `mps`: 100 percent; `sm`: SMs; `cores`: cores. Raises
        UnsupportedError for a kind that the device does not have.
        """
        if kind == "mig" and self.mig:
            return max(profile.units for profile in self.mig)
        if kind == "mps" and self.sms:
            return 100
        if kind == "sm" and self.sms:
            return self.sms
        if kind == "cores" and self.cores:
            return self.cores
        raise UnsupportedError(f"{self.name} has no partitions of kind {kind}")


def _rates(**tflops: float) -> MappingProxyType[str, float]:
    return MappingProxyType(tflops)


def _mig(memory: str, mib: tuple[int, ...], sms: tuple[int, ...], engines: tuple[int, ...]) -> (
    tuple[MigProfile, ...]
):  # fmt: skip
    """Returns the profiles 1g, 1g of double memory, 2g, 3g, 4g and 7g of a device.

    memory: the sizes in their names, in GB; mib: what they can use, in MiB; sms, engines: their SMs
    and copy engines.
    """
    shapes = (SHAPES[1], DOUBLE_MEMORY, *(SHAPES[size] for size in (2, 3, 4, 7)))
    counts = (7, 4, 3, 2, 1, 1)
    rows = zip(shapes, memory.split(), mib, sms, engines, counts, strict=True)
    return tuple(
        MigProfile(
            f"{shape.units}g.{size}gb",
            DOUBLE_ID if shape is DOUBLE_MEMORY else PROFILE_IDS[shape.units],
            shape, usable, count, copies, most,
        )
        for shape, size, usable, count, copies, most in rows
    )  # fmt: skip


def _mib(*gib: float) -> tuple[int, ...]:
    return tuple(round(size * MIB_PER_GIB) for size in gib)


# MIG tables: User Guide and dumps of `nvidia-smi mig -lgip`. A100 gives 98 of its 108 SMs.
_A100_SMS, _A100_ENGINES = (14, 14, 28, 42, 56, 98), (1, 1, 2, 3, 4, 7)
# Hopper: 3g has nearly the SMs of 4g, so slices are no measure of compute there.
_HOPPER_SMS, _HOPPER_ENGINES = (16, 26, 32, 60, 64, 132), (1, 1, 2, 3, 4, 8)
_A100_RATES = _rates(fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)  # A100 datasheet
# H100 SXM and H200 datasheets, halved where they print the rate with sparsity.
_HOPPER_RATES = _rates(fp32=67, tf32=494, fp16=989, bf16=989, fp8=1979, int8=1979)

V100 = DeviceFacts(
    name="v100-16gb",
    architecture="volta",
    sms=80,  # V100 whitepaper, SXM2
    clock_mhz=1530,  # V100 whitepaper
    tflops=_rates(fp32=15.7, fp16=125),  # V100 datasheet, SXM2
    bandwidth_gbs=900,  # V100 datasheet
    l2_mib=6,  # V100 whitepaper: 6144 KB
    memory_gib=16,
    launch_us=5.0,  # estimate: plain launches, before graphs
)
RTX_2080_TI = DeviceFacts(
    name="rtx-2080ti",
    architecture="turing",
    sms=68,  # Turing whitepaper: 4352 cores of 64 an SM
    clock_mhz=1545,  # Turing whitepaper, reference board
    tflops=_rates(fp32=13.4, fp16=107.6),  # Turing whitepaper, reference board
    bandwidth_gbs=616,  # Turing whitepaper
    l2_mib=5.5,  # Turing whitepaper: 5632 KB
    memory_gib=11,
    launch_us=5.0,  # estimate
)
A100_40 = DeviceFacts(
    name="a100-40gb",
    architecture="ampere",
    sms=108,  # A100 whitepaper
    clock_mhz=1410,  # A100 whitepaper
    tflops=_A100_RATES,
    bandwidth_gbs=1555,  # A100 datasheet, SXM 40 GB
    l2_mib=40,  # A100 whitepaper
    memory_gib=40,
    launch_us=3.0,  # estimate
    mig=_mig("5 10 10 20 20 40", (4864, 9856, 9856, 19968, 19968, 40192), _A100_SMS, _A100_ENGINES),
)
A100_80 = DeviceFacts(
    name="a100-80gb",
    architecture="ampere",
    sms=108,
    clock_mhz=1410,
    tflops=_A100_RATES,
    bandwidth_gbs=2039,  # A100 datasheet, SXM 80 GB
    l2_mib=40,
    memory_gib=80,
    launch_us=3.0,  # estimate
    mig=_mig(
        "10 20 20 40 40 80", (9856, 19968, 19968, 40192, 40192, 80384), _A100_SMS, _A100_ENGINES
    ),
)
H100 = DeviceFacts(
    name="h100-80gb",
    architecture="hopper",
    sms=132,  # H100 whitepaper, SXM5
    clock_mhz=1980,  # reported by the driver on H200, the same die
    tflops=_HOPPER_RATES,
    bandwidth_gbs=3350,  # H100 datasheet, SXM
    l2_mib=50,  # H100 whitepaper
    memory_gib=80,
    launch_us=2.5,  # estimate
    mig=_mig(
        "10 20 20 40 40 80",
        _mib(9.75, 19.62, 19.62, 39.5, 39.5, 79.25), _HOPPER_SMS, _HOPPER_ENGINES,
    ),
)  # fmt: skip
H200 = DeviceFacts(
    name="h200-141gb",
    architecture="hopper",
    sms=132,  # reported by the driver
    clock_mhz=1980,  # reported by the driver
    tflops=_HOPPER_RATES,  # about 790 of bf16's 989 were measured with random data
    bandwidth_gbs=4800,  # H200 datasheet; 4300 measured for a copy
    l2_mib=60,  # reported by the driver
    memory_gib=141,
    launch_us=2.5,  # estimate
    mig=_mig(
        "18 35 35 71 71 141",
        _mib(16, 32.25, 32.25, 69.5, 69.5, 140), _HOPPER_SMS, _HOPPER_ENGINES,
    ),
)  # fmt: skip
B200 = DeviceFacts(
    name="b200-180gb",
    architecture="blackwell",
    sms=148,  # reported by the driver
    clock_mhz=1965,  # reported by the driver
    # DGX B200 datasheet over its eight devices, halved where printed with sparsity.
    tflops=_rates(fp32=75, tf32=1100, fp16=2250, bf16=2250, fp8=4500, int8=4500),
    bandwidth_gbs=8000,  # DGX B200 datasheet: 64 TB/s over eight
    l2_mib=126,  # reported by the driver
    memory_gib=180,
    launch_us=2.5,  # estimate
    # SMs of 3g, 4g and 7g and the sizes of 3g to 7g are not confirmed by a dump.
    mig=_mig(
        "23 45 45 90 90 180",
        _mib(20.5, 44.25, 44.25, 90, 90, 180), (18, 30, 36, 68, 72, 148), (2, 2, 3, 6, 8, 16),
    ),
)  # fmt: skip

# The devices below have the profiles of the User Guide's "Supported MIG Profiles" (2025). What an
# instance can use of its memory is not published for them: it is in proportion to the H100's, but
# the A30's, which is from a dump. Rates are datasheets', halved where printed with sparsity.
A30 = DeviceFacts(
    name="a30-24gb",
    architecture="ampere",
    sms=56,  # A30 datasheet
    clock_mhz=1440,
    tflops=_rates(fp32=10.3, tf32=82, fp16=165, bf16=165, int8=330),
    bandwidth_gbs=933,
    l2_mib=24,
    memory_gib=24,
    launch_us=3.0,  # estimate
    mig=tuple(
        MigProfile(f"{shape.units}g.{size}gb", number, shape, round(gib * MIB_PER_GIB), sms,
                   shape.units, 4 // shape.units)
        for shape, size, number, gib, sms in zip(
            NARROW.shapes, (6, 12, 24), (14, 5, 0), (5.81, 11.69, 23.44), (14, 28, 56), strict=True
        )
    ),
)  # fmt: skip
_H100_USABLE = (0.122, 0.245, 0.245, 0.494, 0.494, 0.99)  # of the memory, by profile


def _usable(memory_gib: float) -> tuple[int, ...]:
    return _mib(*(memory_gib * part for part in _H100_USABLE))


H100_NVL = replace(
    H100,
    name="h100-nvl-94gb",
    clock_mhz=1785,
    tflops=_rates(fp32=60, tf32=417, fp16=835, bf16=835, fp8=1671, int8=1671),
    bandwidth_gbs=3900,  # H100 NVL datasheet
    memory_gib=94,
    mig=_mig("12 24 24 47 47 94", _usable(94), _HOPPER_SMS, _HOPPER_ENGINES),
)
GH200_96 = replace(
    H100,
    name="gh200-96gb",
    bandwidth_gbs=4000,  # GH200 datasheet, HBM3
    l2_mib=60,
    memory_gib=96,
    mig=_mig("12 24 24 48 48 96", _usable(96), _HOPPER_SMS, _HOPPER_ENGINES),
)
GH200_144 = replace(
    GH200_96,
    name="gh200-144gb",
    bandwidth_gbs=4900,  # GH200 datasheet, HBM3e
    memory_gib=144,
    mig=_mig("18 36 36 72 72 144", _usable(144), _HOPPER_SMS, _HOPPER_ENGINES),
)
GB200 = replace(
    B200,
    name="gb200-186gb",
    sms=152,  # not confirmed by a dump
    tflops=_rates(fp32=80, tf32=1250, fp16=2500, bf16=2500, fp8=5000, int8=5000),
    memory_gib=186,
    mig=_mig("23 47 47 93 93 186", _usable(186), (18, 30, 36, 68, 72, 152), (2, 2, 3, 6, 8, 16)),
)

DEVICES = MappingProxyType({
    facts.name: facts
    for facts in (
        V100, RTX_2080_TI, A30, A100_40, A100_80, H100, H100_NVL, H200, GH200_96, GH200_144, B200,
        GB200,
    )
})  # fmt: skip
_OWN: dict[str, DeviceFacts] = {}


def learn(facts: DeviceFacts) -> DeviceFacts:
    """Makes a user's own device known by its name, from now on, in this process; returns it.

    Raises UnsupportedError where the name is that of a device known here.
    """
    if facts.name in DEVICES or _CPU.fullmatch(facts.name):
        raise UnsupportedError(f"name: {facts.name} is a known device; give yours another name")
    _OWN[facts.name] = facts
    return facts


MOST_CORES = 4096
_CPU = re.compile(r"cpu-([1-9]\d{0,3})")


def cpu(cores: int) -> DeviceFacts:
    """Returns a CPU package of that many cores, from 1 to 4096; profiles call it `cpu-<cores>`."""
    return DeviceFacts(
        name=f"cpu-{cores}", architecture="cpu", sms=0, clock_mhz=0, tflops=_rates(),
        bandwidth_gbs=0, l2_mib=0, memory_gib=math.inf, launch_us=0, cores=cores,
    )  # fmt: skip


def device(name: str) -> DeviceFacts:
    """Returns the facts of a device by its name, with or without `sim:` before it.

    `cpu-2` is a CPU of two cores. Raises UnsupportedError naming the nearest name that is known.
    """
    bare = name.removeprefix("sim:").lower()
    if bare in DEVICES:
        return DEVICES[bare]
    if (own := _OWN.get(name.removeprefix("sim:"))) is not None:
        return own
    if (match := _CPU.fullmatch(bare)) and int(match[1]) <= MOST_CORES:
        return cpu(int(match[1]))
    if bare.startswith("cpu"):
        raise UnsupportedError(
            f"device: {name!r:.40} is unknown; a CPU is cpu-<cores>, such as cpu-8, from 1 to "
            f"{MOST_CORES}"
        )
    near = difflib.get_close_matches(bare, DEVICES, n=1, cutoff=0.0)
    raise UnsupportedError(
        f"device: {name!r:.40} is unknown; {near[0]} is the nearest of {', '.join(DEVICES)} "
        "and cpu-<cores>; one of your own is given as a file, --device FILE"
    )
