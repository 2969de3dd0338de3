"""The picture of `bench serving`, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import grid, save

COLORS = {"spacetime": "#c1272d", "batch limit": "#bbbbbb"}
OTHERS = "#0072b2"
UNSEEN = "client limit"  # many times the others: their bars would vanish


def draw_serving(record: Mapping[str, Any], path: Path) -> None:
    """Requests a second, p50 and p99 of every server, a row for each number of connections."""
    counts = [*dict.fromkeys(row["connections"] for row in record["rows"])]
    figure, panels = grid(2 * len(counts), columns=2, legend=False)
    for place, count in enumerate(counts):
        rows = [row for row in record["rows"] if row["connections"] == count]
        rate, tail = panels[2 * place : 2 * place + 2]
        _rates(rate, rows)
        _latencies(tail, [row for row in rows if row["server"] != UNSEEN])
        rate.set_title(
            f"{count} connection{'s' * (count > 1)}: requests/s; more is better", fontsize=10
        )
        tail.set_title("latency, ms: p50, and a line to p99; less is better", fontsize=10)
    figure.suptitle(
        f"A model of {1000 * record['batch_s']:g} ms a batch of at most 16 on one lane or instance:"
        f" {record['cores']} cores, {record['cpu']}",
        fontsize=11,
    )
    save(figure, path)


def _rates(axes: Axes, rows: list[dict[str, Any]]) -> None:
    shown = [row for row in rows if row["server"] != UNSEEN]
    _bars(axes, shown, "rps", "{:,.0f}")
    for row in rows:
        if row["server"] == UNSEEN:
            axes.set_xlabel(f"{UNSEEN}: {row['rps']:,.0f}", fontsize=9)


def _latencies(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _bars(axes, rows, "p50_ms", "")
    for row in rows:
        axes.plot([row["p50_ms"], row["p99_ms"]], [row["server"]] * 2, color="black", marker="|")
    axes.set_yticklabels([])


def _bars(axes: Axes, rows: list[dict[str, Any]], key: str, text: str) -> None:
    """One bar a server, the first on top."""
    names = [row["server"] for row in rows]
    colors = [COLORS.get(name, OTHERS) for name in names]
    bars = axes.barh(names, [row[key] for row in rows], color=colors, height=0.65)
    if text:
        axes.bar_label(bars, fmt=text, padding=3, fontsize=9)
        axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
