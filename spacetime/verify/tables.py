"""The certificate on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from spacetime.terminal.tables import FittedTable

HEADS = (
    "probe on", "stressor on", "probe", "stressor", "alone", "beside", "held",
    "p50", "p99", "alone p99 µs", "leak", "verdict",
)  # fmt: skip


def show(record: dict[str, Any]) -> None:
    """Prints partitions, pairs, and the verdict with what is not isolated."""
    screen = Console()
    for number, part in enumerate(record["partitions"]):
        screen.print(
            f"partition {number}: units {part['asked']} asked, {part['granted']} "
            f"{record['unit']}s granted, on {record['unit']}s {part['home']}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    rows = record["rows"]
    screen.print(FittedTable(
        HEADS, [*map(_cells, rows)], words=("probe", "stressor", "verdict"),
        title=f"isolation of {record['device']}, kind {record['kind']}: what the probe holds",
        styles=["red" if row["broken"] else "" for row in rows],
    ))  # fmt: skip
    screen.print(
        "held, p50, p99: beside the stressor, compared with alone. leak: looks that found work "
        "outside its partition.", highlight=False, soft_wrap=True,
    )  # fmt: skip
    bounds = record["bounds"]
    screen.print(
        f"bounds: private pairs hold {bounds['private_held']:g}, p99 x{bounds['private_p99']:g}; "
        f"shared pairs {bounds['shared_held']:g}, x{bounds['shared_p99']:g}; no leak. "
        f"Not isolated: {record['shared']}.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if record.get("split cores"):
        screen.print(f"Partitions share physical cores: {record['split cores']}", highlight=False)
    for first, second in record["overlaps"]:
        screen.print(f"OVERLAP: partitions {first} and {second}", highlight=False)
    failed = sum(bool(row["broken"]) for row in record["rows"])
    passed = "PASSED" if record["passed"] else f"FAILED: {failed} of {len(record['rows'])} pairs"
    screen.print(passed)


def _cells(row: dict[str, Any]) -> list[str]:
    unit = "GFLOP/s" if row["probe"] == "compute" else "GB/s"
    return [
        str(row["on"]),
        str(row["by"]),
        row["probe"],
        row["stressor"],
        f"{row['alone']['rate']:.3g} {unit}",
        f"{row['beside']['rate']:.3g}",
        f"{row['held_frac']:.0%}",
        f"x{row['p50_inflation']:.2f}",
        f"x{row['p99_inflation']:.2f}",
        f"{row['alone']['p99_us']:.0f}",
        f"{row['leaked']}/{row['looked']}",
        "; ".join(row["broken"]) or ("ok" if row["private"] else "ok (shared)"),
    ]
