"""Pictures of predictions beside measurements. Each takes a record as a benchmark wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacetime.plot_bench import STYLES, grid, save


def draw_dsts(record: dict[str, Any], path: Path) -> None:
    """GFLOP/s against tenants: the paper's points and the predicted curves, to a PNG file."""
    figure, (axes, close) = grid(2, columns=2)
    for panel, modes in ((axes, list(record["curve"])), (close, list(record["curve"])[1:])):
        for mode in modes:
            colour = STYLES[mode]["color"]
            error = record["error"]["off"][mode]
            panel.plot(record["tenants"], record["curve"][mode], color=colour, linewidth=1.2,
                       label=f"{mode}: predicted, {error:.1%} off")  # fmt: skip
            panel.plot([row["tenants"] for row in record["rows"]],
                       [row["paper"][mode] for row in record["rows"]], "o", color=colour,
                       markersize=4, label=f"{mode}: paper")  # fmt: skip
        panel.set_xlabel("tenants R")
        panel.set_ylim(bottom=0)
    axes.set_ylabel("GFLOP/s")
    axes.set_title("all three modes", fontsize=10)
    close.set_title("the two baselines alone", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
    period = record["facts"]["period"]
    figure.suptitle(f"D-STS Fig. 7, V100 fp32: a wave holds {period} tenants", fontsize=11)
    save(figure, path)
