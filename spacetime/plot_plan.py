"""Pictures of planning: who admits how much. Each takes a record as a benchmark wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plot_bench import grid, save

OURS, PAPER = "#c1272d", "#7f7f7f"


def draw_gpulet(record: dict[str, Any], path: Path) -> None:
    """Parts of scenarios admitted, and highest rates, ours beside the paper's, to a PNG file."""
    figure, panels = grid(len(record["studies"]) + 1, columns=3)
    for study, axes in zip(record["studies"], panels, strict=False):
        names = list(study["admitted"])
        ours = [100 * study["admitted"][name] / study["scenarios"] for name in names]
        paper = [100 * study["paper"].get(name, 0) / study["of"] for name in names]
        _pairs(axes, names, ours, paper)
        axes.set_title(f"{study['study']}: % of {study['scenarios']} scenarios", fontsize=10)
    rows, axes = record["rates"], panels[-1]
    names = [name for name in rows[0]["rps"] if name != "sbp"]
    gains = [
        [100 * (sum(row[of][n] / row[of]["sbp"] for row in rows) / len(rows) - 1) for n in names]
        for of in ("rps", "paper")
    ]
    _pairs(axes, names, *gains)
    axes.set_title("highest rate over sbp, %, mean of mixes", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"gpulet's evaluation, planned on {record['gpus']} devices", fontsize=11)
    save(figure, path)


def _pairs(axes: Axes, names: list[str], ours: list[float], paper: list[float]) -> None:
    """Two bars for each name; a bar of nothing is one the paper does not give."""
    places = range(len(names))
    axes.bar([place - 0.2 for place in places], ours, 0.38, color=OURS, label="ours")
    axes.bar([place + 0.2 for place in places], paper, 0.38, color=PAPER, label="paper")
    axes.set_xticks(list(places), names, rotation=35, ha="right", fontsize=8)
    axes.grid(visible=False, axis="x")
