"""The picture of an isolation certificate, drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spacetime.plots.axes import save

PASSED, BROKEN, LOOSE = "#d5e8d4", "#f4b6b3", "#eeeeee"
MOST = 4  # directions a cell has room for
Row = dict[str, Any]


def draw_verify(record: dict[str, Any], path: Path) -> None:
    """Throughput held and p99 inflation, probe against stressor, every ordered pair: a PNG.

    A cell has a line for each direction, up to `MOST`, the worst first.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, record, "throughput held, % of alone; more is better", _held)
    _panel(right, record, "latency p99, times that alone; less is better", _inflation)
    granted = ", ".join(str(part["granted"]) for part in record["partitions"])
    verdict = "passed" if record["passed"] else "FAILED"
    figure.suptitle(
        f"{record['device']}: partitions of {granted} {record['unit']}s, {verdict} "
        "(green: private, grey: shared, red: bound broken)\n"
        "0 beside 1: the probe runs on partition 0, the stressor on 1",
        fontsize=10,
    )
    save(figure, path)


def _held(rows: Sequence[Row]) -> list[str]:
    worst_first = sorted(rows, key=lambda row: float(row["held_frac"]))
    return [f"{_way(row)}: {100 * row['held_frac']:.0f} %" for row in worst_first]


def _inflation(rows: Sequence[Row]) -> list[str]:
    worst_first = sorted(rows, key=lambda row: -float(row["p99_inflation"]))
    return [f"{_way(row)}: ×{row['p99_inflation']:.2f}" for row in worst_first]


def _way(row: Row) -> str:
    return f"{row['on']} beside {row['by']}"


def _lines(told: list[str]) -> str:
    more = [f"and {len(told) - MOST} better"] if len(told) > MOST else []
    return "\n".join([*told[:MOST], *more])


def _panel(
    axes: Axes,
    record: dict[str, Any],
    title: str,
    told: Callable[[Sequence[Row]], list[str]],
) -> None:
    probes, stressors = record["effort"]["probes"], record["effort"]["stressors"]
    for y, probe in enumerate(probes):
        for x, stressor in enumerate(stressors):
            rows = [
                row
                for row in record["rows"]
                if (row["probe"], row["stressor"]) == (probe, stressor)
            ]
            axes.add_patch(_cell(x, y, rows))
            axes.text(x, y, _lines(told(rows)), ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(stressors)), stressors)
    axes.set_yticks(range(len(probes)), probes)
    axes.set_xlim(-0.5, len(stressors) - 0.5)
    axes.set_ylim(len(probes) - 0.5, -0.5)
    axes.set_xlabel("stressor")
    axes.set_ylabel("probe")
    axes.set_title(title, fontsize=10)
    axes.tick_params(length=0)


def _cell(x: int, y: int, rows: Sequence[Row]) -> Rectangle:
    broken = any(row["broken"] for row in rows)
    colour = BROKEN if broken else PASSED if rows[0]["private"] else LOOSE
    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=colour)
