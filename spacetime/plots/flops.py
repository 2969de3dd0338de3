"""The picture of `bench flops`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import COLUMNS, WAY_STYLES, grid, save


def draw_flops(record: dict[str, Any], path: Path) -> None:
    """GFLOP/s against the number of tenants, a panel for each problem, to a PNG file."""
    problems = [*dict.fromkeys(row["problem"] for row in record["rows"])]
    figure, panels = grid(len(problems))
    for problem, axes in zip(problems, panels, strict=True):
        rows = [row for row in record["rows"] if row["problem"] == problem]
        _flops_panel(axes, problem, rows)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("GFLOP/s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"R tenants of one layer, other weights each: {record['cores']} cores, {record['cpu']}, "
        f"fp32, peak {record['peak']['gflops']:.0f} GFLOP/s; higher is better",
        fontsize=11,
    )
    save(figure, path)


def _flops_panel(axes: Axes, problem: str, rows: list[dict[str, Any]]) -> None:
    tenants = [row["tenants"] for row in rows]
    for way, style in WAY_STYLES.items():
        axes.plot(tenants, [row["gflops"][way] for row in rows], label=way, markersize=4, **style)
    axes.set_title(problem, fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tenants, [str(count) for count in tenants])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tenants R")
