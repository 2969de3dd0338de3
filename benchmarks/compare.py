"""What changed between two records: python -m spacetime.benchmarks.compare before.json after.json

Rows are matched by their settings. Every measured number that both records hold is compared: the
change of each is printed, and the geometric mean of the changes of each quantity.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from spacetime.benchmarks import record

SETTINGS = (
    "problem", "model", "tenants", "precision", "sms", "loop", "load", "server", "policy", "mode",
    "way", "name",
)  # fmt: skip
DIFFERS = ("device", "cpu", "cores", "torch", "quick", "seed", "commit")


def quantities(row: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Yields every measured number of a row with its path, such as `gflops.space-time`."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from quantities(value, f"{path}{key}.")
        elif type(value) in {int, float} and key not in SETTINGS:
            yield path + key, float(value)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """Returns row, quantity, and values before and after, of everything that both records measure.

    Raises ValueError for records of different topics.
    """
    if before["topic"] != after["topic"]:
        raise ValueError(f"topic: {before['topic']} cannot be compared with {after['topic']}")
    rows = {_name(row): dict(quantities(row)) for row in before["rows"]}
    changed = []
    for row in after["rows"]:
        earlier = rows.get(_name(row), {})
        for quantity, value in quantities(row):
            if quantity in earlier:
                changed.append((_name(row), quantity, earlier[quantity], value))
    return changed


def _name(row: dict[str, Any]) -> str:
    return " ".join(str(row[key]) for key in SETTINGS if key in row)


def print_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Prints in what the two runs differ, the change of each quantity, and the means."""
    console = Console()
    for key in DIFFERS:
        if before.get(key) != after.get(key):
            console.print(f"{key}: {before.get(key)} -> {after.get(key)}")
    changed = changes(before, after)
    rows = [(row, quantity, a, b, _ratio(a, b)) for row, quantity, a, b in changed]
    heads = ("row", "quantity", "before", "after", "after / before")
    console.print(record.table(f"bench {after['topic']}", heads, rows))
    names = dict.fromkeys(quantity for _, quantity, _, _ in changed)
    means = []
    for name in names:
        ratios = [b / a for _, quantity, a, b in changed if quantity == name and a > 0 and b > 0]
        mean = record.geometric_mean(ratios)
        means.append((name, len(ratios), "-" if mean is None else f"x{mean:.3f}"))
    console.print(record.table("geometric means", ("quantity", "rows", "after / before"), means))


def _ratio(before: float, after: float) -> str:
    return f"x{after / before:.3f}" if before > 0 else "-"


def main() -> None:
    """Runs `python -m spacetime.benchmarks.compare`."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.compare")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    asked = parser.parse_args()
    print_changes(
        *(json.loads(path.read_text(encoding="utf-8")) for path in (asked.before, asked.after))
    )


if __name__ == "__main__":
    main()
