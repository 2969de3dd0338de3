"""Reading and writing profiles as CSV, one point a row. Every refusal names file, row and field.

model,device,kind,units,batch,procs,latency_ms,throughput_rps,source[,tenants][,memory_mib]

Columns may come in any order, and others beside them, which are not read. The last two may be
absent, and are written only where some point needs them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from spacetime.errors import ProfileError
from spacetime.profiles.profile import Point, Profiles
from spacetime.table_file import Table

OPTIONAL = ["tenants", "memory_mib"]
HEADER = [field.name for field in fields(Point) if field.name not in OPTIONAL]


def read_profiles(path: str | Path) -> Profiles:
    """Read and check a profile file.

    Raises ProfileError, one line `file:line: field: what it must be`.
    """
    path = Path(path)
    points: dict[Any, int] = {}
    found: list[Point] = []
    table = Table(path, ProfileError)
    for row, values in table.rows(HEADER, OPTIONAL):
        known = {f: v for f, v in values.items() if f != "memory_mib" or v}  # empty: unknown
        point = make(table, row, table.typed(row, known, Point))
        if (first := points.setdefault((point.device, point.key), row)) != row:
            raise ProfileError(
                "batch", f"this point was given before, in row {first}", where=f"{path}:{row}: "
            )
        if point.device != (found or [point])[0].device:
            raise ProfileError(
                "device", f"must be {found[0].device} as in the rows before, got {point.device}",
                where=f"{path}:{row}: ",
            )  # fmt: skip
        found.append(point)
    if not found:
        raise ProfileError("profiles", "holds no point", where=f"{path}:1: ")
    return Profiles(tuple(found))


def write_profiles(path: Path, points: Iterable[Point]) -> None:
    """Write points as `read_profiles` reads them; numbers keep every digit."""
    points = list(points)
    needed = [any(p.tenants > 1 for p in points), any(p.memory_mib is not None for p in points)]
    header = HEADER + [name for name, need in zip(OPTIONAL, needed, strict=True) if need]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        rows.writerows([getattr(point, name) for name in header] for point in points)


def make(table: Table, row: int, values: dict[str, Any]) -> Point:
    """A point of one row's values. Raises ProfileError with file and line."""
    try:
        return Point(**values)
    except ProfileError as error:
        raise ProfileError(error.field, error.problem, where=f"{table.path}:{row}: ") from error
