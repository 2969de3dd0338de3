"""Profiles published by others, read into ours. Nothing of their data is part of this project.

`parvagpu`: a folder of `<model>.csv` of the ParvaGPU artifact (SC'24), an A100-80GB: throughput is
that of one process and latency in seconds to the millisecond; `0,0` is out of memory.
`gpulet`: latencies digitised from Fig. 3 of the gpulet paper (ATC'22), an RTX 2080 Ti under MPS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from spacetime.errors import ProfileError
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import make
from spacetime.table_file import Table

PARVAGPU_HEADER = ["Mig instance", "Batch size", "Workload Number", "Throughput", "Latency"]
GPULET_HEADER = ["model", "batch", "share_percent", "latency_ms"]
NOT_A_MODEL = "scenarios.csv"  # lies in the same folder


def parvagpu(path: Path) -> Profiles:
    """Read one `<model>.csv`, or all of a folder: MIG sizes × batches × processes.

    Raises ProfileError naming file, row and field.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    files = [file for file in files if file.name != NOT_A_MODEL]
    if not files:
        raise ProfileError(str(path), "holds no <model>.csv")
    return _all(path, [point for file in files for point in _parvagpu_file(file)])


def _parvagpu_file(path: Path) -> Iterator[Point]:
    table = Table(path, ProfileError)
    for row, values in table.rows(PARVAGPU_HEADER):
        size, batch, procs = (table.whole(row, name, values[name]) for name in PARVAGPU_HEADER[:3])
        rate, seconds = (table.number(row, name, values[name]) for name in PARVAGPU_HEADER[3:])
        if rate == seconds == 0:  # out of memory: there is no such point
            continue
        yield make(
            table,
            row,
            {
                "model": path.stem,
                "device": "a100-80gb",
                "kind": "mig",
                "units": size,
                "batch": batch,
                "procs": procs,
                "latency_ms": seconds * 1000,
                "throughput_rps": rate * procs,
                "source": "measured",
            },
        )


def gpulet(path: Path) -> Profiles:
    """Read `model,batch,share_percent,latency_ms`; a rate is one batch after another.

    Raises ProfileError naming file, row and field.
    """
    found = []
    table = Table(path, ProfileError)
    for row, values in table.rows(GPULET_HEADER):
        latency_ms = table.number(row, "latency_ms", values["latency_ms"])
        batch = table.whole(row, "batch", values["batch"])
        found.append(
            make(
                table,
                row,
                {
                    "model": values["model"],
                    "device": "rtx-2080ti",
                    "kind": "mps",
                    "units": table.whole(row, "share_percent", values["share_percent"]),
                    "batch": batch,
                    "procs": 1,
                    "latency_ms": latency_ms,
                    "throughput_rps": batch / latency_ms * 1000 if latency_ms else 0.0,
                    "source": "measured",
                },
            )
        )
    return _all(path, found)


def _all(path: Path, points: list[Point]) -> Profiles:
    try:
        return Profiles(tuple(points))
    except ProfileError as error:
        raise ProfileError(error.field, error.problem, where=f"{path}: ") from error


IMPORTERS: dict[str, Callable[[Path], Profiles]] = {"parvagpu": parvagpu, "gpulet": gpulet}
