"""Pictures of planning: who admits how much. Each takes a record as a benchmark wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import grid, save

OURS, PAPER = "#c1272d", "#7f7f7f"


def draw_gpulet(record: dict[str, Any], path: Path) -> None:
    """Parts of scenarios admitted, and highest rates, ours beside the paper's, to a PNG file."""
    figure, panels = grid(len(record["studies"]) + 1, columns=3)
    for study, axes in zip(record["studies"], panels, strict=False):
        names = list(study["admitted"])
        ours = [100 * study["admitted"][name] / study["scenarios"] for name in names]
        paper = [100 * study["paper"].get(name, 0) / study["of"] for name in names]
        _pairs(axes, names, ours, paper)
        title = f"{study['study']}: % of {study['scenarios']:,} scenarios admitted"
        axes.set_title(title, fontsize=10)
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
    title = f"gpulet's evaluation, planned on {record['gpus']} devices; higher is better"
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _pairs(axes: Axes, names: list[str], ours: list[float], paper: list[float]) -> None:
    """Two bars for each name; a bar of nothing is one the paper does not give."""
    places = range(len(names))
    axes.bar([place - 0.2 for place in places], ours, 0.38, color=OURS, label="ours")
    axes.bar([place + 0.2 for place in places], paper, 0.38, color=PAPER, label="paper")
    axes.set_xticks(list(places), names, rotation=35, ha="right", fontsize=8)
    axes.grid(visible=False, axis="x")


def draw_paris(record: dict[str, Any], path: Path) -> None:
    """Latency-bounded throughput of every server, in that of whole devices, to a PNG file."""
    rows = record["rows"]
    figure, panels = grid(len(rows), columns=len(rows), legend=False)
    for row, axes in zip(rows, panels, strict=True):
        names = [name for name in row["rps"] if name != "best homogeneous"]
        base = row["rps"]["7g fifs"] or 1.0
        heights = [row["rps"][name] / base for name in names]
        colours = [OURS if name == "paris elsa" else PAPER for name in names]
        axes.barh(names[::-1], heights[::-1], color=colours[::-1], height=0.7)
        for place, height in enumerate(heights[::-1]):
            axes.text(
                height, place, f" {height:.2f}" if height else " none", va="center", fontsize=7
            )
        axes.set_xlim(0, 1.25 * max(heights))
        axes.set_title(f"{row['model']}, {row['gpus']} devices", fontsize=10)
        axes.grid(visible=False, axis="y")
        if axes is not panels[0]:
            axes.set_yticklabels([])
    figure.suptitle(
        f"Highest rate with {record['in_time']:.0%} of the requests in time, whole devices = 1; "
        "higher is better (simulated from published profiles)",
        fontsize=11,
    )
    save(figure, path)


def draw_parvagpu(record: dict[str, Any], path: Path) -> None:
    """Devices of every way for each scenario, ours beside the artifact's, to a PNG file."""
    scenarios = [*dict.fromkeys(row["scenario"] for row in record["rows"])]
    figure, panels = grid(len(scenarios), columns=len(scenarios))
    for scenario, axes in zip(scenarios, panels, strict=True):
        rows = [row for row in record["rows"] if row["scenario"] == scenario]
        ours, paper = ([row[key] or 0 for row in rows] for key in ("gpus", "paper_gpus"))
        _pairs(axes, [row["way"] for row in rows], ours, paper)
        axes.set_title(scenario, fontsize=10)
    panels[0].set_ylabel("devices")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    title = "Devices for ParvaGPU's scenarios; paper: its artifact; fewer is better"
    figure.suptitle(title, fontsize=11)
    save(figure, path)
