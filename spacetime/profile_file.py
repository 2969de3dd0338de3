"""Reading and writing profiles as CSV, one point a row. Every refusal names file, row and field.

model,device,kind,units,batch,procs,latency_ms,throughput_rps,source[,tenants][,memory_mib]

The last two columns may be absent, and are written only where some point needs them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from spacetime.errors import ProfileError
from spacetime.profile import Point, Profiles

OPTIONAL = ["tenants", "memory_mib"]
HEADER = [field.name for field in fields(Point) if field.name not in OPTIONAL]
NUMBERS: dict[str, Callable[[str], Any]] = {
    "units": int, "batch": int, "procs": int, "latency_ms": float, "throughput_rps": float,
    "tenants": int, "memory_mib": float,
}  # fmt: skip


def read(path: Path) -> Profiles:
    """Read and check a profile file.

    Raises ProfileError, one line `file:row: field: what it must be`; rows count the header.
    """
    points: dict[Any, int] = {}
    found: list[Point] = []
    for row, values in rows(path, HEADER, OPTIONAL):
        known = {f: v for f, v in values.items() if f != "memory_mib" or v}  # empty: unknown
        point = make(path, row, known)
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


def write(path: Path, points: Iterable[Point]) -> None:
    """Write points as `read` reads them; numbers keep every digit."""
    points = list(points)
    needed = [any(p.tenants > 1 for p in points), any(p.memory_mib is not None for p in points)]
    header = HEADER + [name for name, need in zip(OPTIONAL, needed, strict=True) if need]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        rows.writerows([getattr(point, name) for name in header] for point in points)


def rows(
    path: Path, header: list[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row of a CSV file that must begin with `header`: its number, and its values by field.

    Columns of `optional` may follow, in that order.

    Raises ProfileError for a file that cannot be read, another header, or a row of other length.
    """
    lines = csv.reader(_text(path).splitlines(), strict=True)
    row = 1
    try:
        got = next(lines, [])
        if got != header + [name for name in optional if name in got]:
            raise ProfileError(
                "header", f"must be {','.join(header)}, got {','.join(got)!r:.60}",
                where=f"{path}:1: ",
            )  # fmt: skip
        for row, values in enumerate(lines, start=2):
            if len(values) != len(got):
                raise ProfileError(
                    "row", f"must have {len(got)} fields, has {len(values)}; is it cut short?",
                    where=f"{path}:{row}: ",
                )  # fmt: skip
            yield row, dict(zip(got, values, strict=True))
    except csv.Error as error:
        raise ProfileError("row", f"is not CSV: {error}", where=f"{path}:{row + 1}: ") from error


def number(path: Path, row: int, field: str, text: str, kind: Callable[[str], Any]) -> Any:
    """`text` as an int or a float. Raises ProfileError naming file, row and field."""
    try:
        return kind(text)
    except ValueError:
        noun = "whole number" if kind is int else "number"
        problem = f"must be a {noun}, got {text!r:.40}"
        raise ProfileError(field, problem, where=f"{path}:{row}: ") from None


def make(path: Path, row: int, values: dict[str, Any]) -> Point:
    """A point of one row's values, texts or numbers. Raises ProfileError with file and row."""
    entries = {
        field: number(path, row, field, value, NUMBERS[field])
        if field in NUMBERS and isinstance(value, str)
        else value
        for field, value in values.items()
    }
    try:
        return Point(**entries)
    except ProfileError as error:
        raise ProfileError(error.field, error.problem, where=f"{path}:{row}: ") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    except OSError as error:
        raise ProfileError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(str(path), "must be UTF-8 text") from error
