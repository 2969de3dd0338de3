"""The picture of an isolation certificate, drawn without a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PASSED, BROKEN, LOOSE = "#d5e8d4", "#f4b6b3", "#eeeeee"


def draw_verify(record: dict[str, Any], path: Path) -> None:
    """Throughput held and p99 inflation, probe against stressor, the worst pair of each: a PNG."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _panel(left, record, "throughput held, of alone", _held)
    _panel(right, record, "latency p99, times alone", _inflation)
    granted = ", ".join(str(part["granted"]) for part in record["partitions"])
    verdict = "passed" if record["passed"] else "FAILED"
    figure.suptitle(
        f"{record['device']}: partitions of {granted} {record['unit']}s, {verdict} "
        "(green: private, grey: shared, red: bound broken)",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def _held(rows: Sequence[dict[str, Any]]) -> str:
    return f"{min(row['held_frac'] for row in rows):.0%}"


def _inflation(rows: Sequence[dict[str, Any]]) -> str:
    return f"×{max(row['p99_inflation'] for row in rows):.2f}"


def _panel(
    axes: Axes,
    record: dict[str, Any],
    title: str,
    worst: Callable[[Sequence[dict[str, Any]]], str],
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
            axes.text(x, y, worst(rows), ha="center", va="center", fontsize=11)
    axes.set_xticks(range(len(stressors)), stressors)
    axes.set_yticks(range(len(probes)), probes)
    axes.set_xlim(-0.5, len(stressors) - 0.5)
    axes.set_ylim(len(probes) - 0.5, -0.5)
    axes.set_xlabel("stressor, on the other partition")
    axes.set_ylabel("probe")
    axes.set_title(title, fontsize=10)
    axes.tick_params(length=0)


def _cell(x: int, y: int, rows: list[dict[str, Any]]) -> Rectangle:

    broken = any(row["broken"] for row in rows)
    colour = BROKEN if broken else PASSED if rows[0]["private"] else LOOSE
    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=colour)
