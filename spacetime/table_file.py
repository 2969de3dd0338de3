"""Reading CSV tables as people have them: columns in any order, more of them than needed, a mark at
the beginning, any line ends, blank lines, spaces after commas, compressed (`.gz`).

A row that misses fields is refused, for a file cut short is not the file. Every refusal is one line
with file, line and field, raised as the error of who reads.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol


class FieldError(Protocol):
    """An error class that knows field, problem and where, such as ProfileError."""

    def __call__(self, field: str, problem: str, *, where: str = "") -> Exception: ...


class Table:
    """A CSV file and its header; iterate over `rows`. Nothing is read before it is asked for."""

    def __init__(self, path: Path, error: FieldError) -> None:
        self.path, self._error = path, error

    def rows(
        self, needed: Sequence[str], optional: Sequence[str] = (), *, short: bool = False,
        more: Callable[[str], bool] | None = None,
    ) -> Iterator[tuple[int, dict[str, str]]]:  # fmt: skip
        """Each row's line in the file, and its values by the names asked for; others are ignored.

        `more` says of any other column whether it is wanted too. With `short` a row may end early;
        then its last columns are absent. Raises the error of who reads.
        """
        line = 0
        try:
            with opened(self.path) as file:
                lines = csv.reader(file, strict=True, skipinitialspace=True)
                header = [name.strip() for name in next(lines, [])]
                places = self._places(header, needed, optional, more)
                for values in lines:
                    line = lines.line_num
                    if any(value.strip() for value in values):
                        yield line, self._row(line, header, values, places, short=short)
        except csv.Error as error:
            self.refuse(line + 1, "row", f"is not CSV: {error}")
        except UnicodeDecodeError:
            raise self._error(str(self.path), "must be UTF-8 text") from None
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or error
            raise self._error(str(self.path), f"cannot be read: {why}") from error

    def _places(
        self, header: list[str], needed: Sequence[str], optional: Sequence[str],
        more: Callable[[str], bool] | None,
    ) -> dict[str, int]:  # fmt: skip
        known = {name.lower(): name for name in (*needed, *optional)}
        names = [known.get(name.lower(), name) for name in header]
        wanted = [
            name for name in names if name.lower() in known or (more is not None and more(name))
        ]
        for name in wanted:
            if names.count(name) > 1:
                self.refuse(1, "header", f"has {name} twice")
        for name in needed:
            if name not in names:
                got = f"got {','.join(header)!r:.60}" if any(header) else "the file begins without"
                self.refuse(1, "header", f"must be {','.join(needed)} (no {name}), {got}")
        return {name: names.index(name) for name in wanted}

    def _row(
        self, line: int, header: list[str], values: list[str], places: dict[str, int], *,
        short: bool,
    ) -> dict[str, str]:  # fmt: skip
        beyond = [value for value in values[len(header) :] if value.strip()]
        if beyond or (len(values) < len(header) and not short):
            self.refuse(
                line, "row", f"must have {len(header)} fields, has {len(values)}; is it cut short?"
            )
        return {
            name: values[place].strip() for name, place in places.items() if place < len(values)
        }

    def typed(self, line: int, values: Mapping[str, str], kind: type) -> dict[str, Any]:
        """A row's texts as the fields of the dataclass `kind` are typed: numbers, or texts still.

        msgspec would take no `8.0` or `1e3` for a whole number, as spreadsheets write them.
        """
        readers: dict[str, Callable[[int, str, str], float]]
        readers = {"int": self.whole, "float": self.number}
        asked = {field.name: str(field.type).partition(" ")[0] for field in fields(kind)}
        return {
            name: readers[asked[name]](line, name, text) if asked[name] in readers else text
            for name, text in values.items()
        }

    def whole(self, line: int, field: str, text: str) -> int:
        """A whole number, also as a spreadsheet writes it: 8, 8.0 or 1e3."""
        try:
            return int(text)
        except ValueError:
            value = self.number(line, field, text, "whole number")
        if not value.is_integer():  # nor are NaN and inf
            self.refuse(line, field, f"must be a whole number, got {text!r:.40}")
        return int(value)

    def number(self, line: int, field: str, text: str, noun: str = "number") -> float:
        """A number, finite or not: whose it is has bounds of its own."""
        try:
            return float(text)
        except ValueError:
            self.refuse(line, field, f"must be a {noun}, got {text!r:.40}")

    def refuse(self, line: int, field: str, problem: str) -> NoReturn:
        """Raises the error of who reads."""
        raise self._error(field, problem, where=f"{self.path}:{line}: ")


def opened(path: Path) -> IO[str]:
    """A text file, or the one that a `.gz` holds; its line ends are as they are."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
