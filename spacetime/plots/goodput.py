"""The picture of `bench goodput`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import grid, plain_ticks, save

STYLES: dict[str, dict[str, Any]] = {
    "spacetime": {"color": "#c1272d", "linewidth": 2.4, "marker": "o", "zorder": 5},
    "triton": {"color": "#0072b2", "linewidth": 1.5, "marker": "s"},
    "litserve": {"color": "#e69f00", "linewidth": 1.5, "marker": "^"},
}


def draw_goodput(record: dict[str, Any], path: Path) -> None:
    """Answers in time above and p99 below, both against offered load, to a PNG file."""
    fleets = record["fleets"]
    figure, panels = grid(2 * len(fleets), columns=len(fleets))
    for place, fleet in enumerate(fleets):
        above, below = panels[place], panels[place + len(fleets)]
        _lines(above, fleet, "goodput_rps")
        most = max(row["offered_rps"] for row in fleet["rows"])
        above.plot(
            [0, most], [0, most], color="#999999", linewidth=1, linestyle=":", label="offered"
        )
        highest = max(row["goodput_rps"] for row in fleet["rows"])
        above.set_ylim(0, 1.15 * highest)
        above.set_title(f"{fleet['tenants']} tenants; more answers are better", fontsize=10)
        below.set_title("latency; less is better", fontsize=10)
        _lines(below, fleet, "p99_ms")
        below.axhline(record["slo_ms"], color="#999999", linewidth=1, linestyle=":")
        below.set_yscale("log")
        plain_ticks(below.yaxis)
        below.set_xlabel("offered, requests/s", fontsize=9)
    panels[0].set_ylabel(f"answers within {record['slo_ms']:g} ms, a second")
    panels[len(fleets)].set_ylabel("p99 of what was answered, ms")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"R small {' and '.join(record['kinds'])} models: {record['cores']} cores, {record['cpu']}",
        fontsize=11,
    )
    save(figure, path)


def _lines(axes: Axes, fleet: dict[str, Any], key: str) -> None:
    """A line for each server that was there."""
    for name, style in STYLES.items():
        rows = [row for row in fleet["rows"] if row["server"] == name and row[key] is not None]
        if rows:
            offered = [row["offered_rps"] for row in rows]
            axes.plot(offered, [row[key] for row in rows], label=name, markersize=4, **style)
    axes.set_xlim(left=0)
