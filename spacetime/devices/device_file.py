"""A device of one's own: its facts in a YAML or JSON file, wherever a device's name is taken.

    name: my-gpu-48gb            # what profiles call it
    sms: 84
    memory_gib: 48
    bandwidth_gbs: 1008          # this and the next three only to predict profiles
    clock_mhz: 2520
    l2_mib: 96
    tflops: {fp32: 82, fp16: 165}
    mig:                         # a row a size, as `nvidia-smi mig -lgipp` says
      - {units: 1, memory_slices: 1, starts: [0, 1, 2, 3], memory_gib: 11, sms: 21}

Every refusal is one line with file and field.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from spacetime.devices import facts
from spacetime.devices.facts import MIB_PER_GIB, DeviceFacts
from spacetime.devices.mig import MigProfile, Shape
from spacetime.errors import UnsupportedError
from spacetime.workload import workload_file
from spacetime.workload.workload import WorkloadError

SUFFIXES = (".yaml", ".yml", ".json")
REQUIRED = {"name", "sms", "memory_gib"}
OPTIONAL = {"bandwidth_gbs", "clock_mhz", "l2_mib", "launch_us", "tflops", "architecture", "mig"}
ROW = {"units", "memory_slices", "starts", "memory_gib", "sms"}
DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")
MOST_SLICES = 16


def device_named(text: str) -> DeviceFacts:
    """Returns the facts of a device by its name, or by a file (`*.yaml`, `*.yml`, `*.json`).

    The device of a file is known by its own name from now on. Raises UnsupportedError: one line
    `file: field: what it must be`, or what `facts.device` says of a name it does not know.
    """
    if Path(text).suffix in SUFFIXES:
        return facts.learn(read_device(Path(text)))
    return facts.device(text)


def read_device(path: Path) -> DeviceFacts:
    """Returns the facts in a file. Raises UnsupportedError naming file and field."""
    try:
        data = yaml.safe_load(workload_file.read_text(path))
    except WorkloadError as error:
        raise UnsupportedError(str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnsupportedError(
            f"{path}: is not YAML: {' '.join(str(error).split()):.200}"
        ) from None
    try:
        return _facts(_fields(data, "device", REQUIRED, OPTIONAL))
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error


def _facts(data: dict[str, Any]) -> DeviceFacts:
    name = data["name"]
    if not isinstance(name, str) or not name.strip() or len(name) > 100:
        raise UnsupportedError(f"name: must be a text of 1 to 100 characters, got {name!r:.40}")
    rates = _fields(data.get("tflops", {}), "tflops", set(), set(DTYPES))
    rows = data.get("mig", [])
    if not isinstance(rows, list):
        raise UnsupportedError(f"mig: must be a list of rows, got {rows!r:.40}")
    mig = tuple(_row(row, f"mig[{number}]") for number, row in enumerate(rows))
    if len({profile.units for profile in mig}) < len(mig):
        raise UnsupportedError("mig: has two rows of the same units")
    return DeviceFacts(
        name=name.strip(), architecture=str(data.get("architecture", "own")),
        sms=_whole("sms", data["sms"], 1, 100_000),
        memory_gib=_number("memory_gib", data["memory_gib"]),
        clock_mhz=_whole("clock_mhz", data.get("clock_mhz", 0), 0, 100_000),
        tflops=MappingProxyType({k: _number(f"tflops.{k}", rate) for k, rate in rates.items()}),
        bandwidth_gbs=_number("bandwidth_gbs", data.get("bandwidth_gbs", 0), 0),
        l2_mib=_number("l2_mib", data.get("l2_mib", 0), 0),
        launch_us=_number("launch_us", data.get("launch_us", 3.0), 0), mig=mig,
    )  # fmt: skip


def _row(data: Any, place: str) -> MigProfile:
    row = _fields(data, place, ROW, {"id"})
    units = _whole(f"{place}.units", row["units"], 1, MOST_SLICES)
    memory = _whole(f"{place}.memory_slices", row["memory_slices"], 1, MOST_SLICES)
    starts = row["starts"]
    if not isinstance(starts, list) or not starts:
        raise UnsupportedError(f"{place}.starts: must list memory slices, got {starts!r:.40}")
    begin = tuple(_whole(f"{place}.starts", start, 0, MOST_SLICES) for start in starts)
    gib = _number(f"{place}.memory_gib", row["memory_gib"])
    return MigProfile(
        f"{units}g.{gib:.0f}gb", _whole(f"{place}.id", row.get("id", 0), 0, 1000),
        Shape(units, memory, begin), round(gib * MIB_PER_GIB),
        _whole(f"{place}.sms", row["sms"], 1, 100_000), units, len(begin),
    )  # fmt: skip


def _fields(data: Any, place: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UnsupportedError(f"{place}: must be fields and values, got {data!r:.40}")
    for name in data:
        if name not in required | optional:
            names = ", ".join(sorted(required | optional))
            raise UnsupportedError(f"{place}: {name!s:.40} is not a field here; there are {names}")
    for name in sorted(required - data.keys()):
        raise UnsupportedError(f"{place}: {name} is missing; add it")
    return data


def _number(place: str, value: Any, low: float = 1e-9) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= 1e9:  # nor is NaN
        bound = "from 0" if low == 0 else "above 0"
        raise UnsupportedError(f"{place}: must be a number {bound} to 1e9, got {value!r:.40}")
    return float(value)


def _whole(place: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UnsupportedError(
            f"{place}: must be a whole number from {low} to {high}, got {value!r:.40}"
        )
    return value
