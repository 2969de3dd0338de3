"""The picture of `bench embed`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots.axes import plain_ticks, save


def draw_embed(record: dict[str, Any], path: Path) -> None:
    """Answers a second and p99 of every server, before and after, to a PNG file."""
    rows = record["rows"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    names = [f"{row['server']}, {row['concurrency']} at once" for row in rows]
    words = {"rps": "answers/s; more is better", "p99_ms": "p99, ms; less is better"}
    for axes, (key, word) in zip(figure.subplots(1, 2), words.items(), strict=True):
        for way, colour, shift in (("before", "#7f7f7f", -0.2), ("after", "#c1272d", 0.2)):
            places = [place + shift for place in range(len(rows))]
            axes.barh(places, [row[way][key] for row in rows], 0.4, color=colour, label=way)
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
        axes.set_xlabel(word)
        axes.grid(visible=True, axis="x", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    title = f"Four models behind one server: {record['cores']} cores, {record['cpu']}"
    figure.suptitle(title, fontsize=11)
    save(figure, path)
