"""The picture of live against simulated, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots.axes import plain_ticks, save

COLUMNS = 4


def draw_agreement(record: dict[str, Any], path: Path) -> None:
    """Latency's distribution, live and simulated, a panel a policy and load, to a PNG file."""
    rows = record["rows"]
    columns = min(COLUMNS, len(rows))
    deep = -(-len(rows) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * deep + 0.6), layout="constrained")
    panels = figure.subplots(deep, columns, squeeze=False).ravel()
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    for panel, row in zip(panels, rows, strict=False):
        for side, color, style in (("live", "#c1272d", "-"), ("simulated", "#000000", "--")):
            panel.plot(row[side]["ms"], row["quantiles"], style, color=color, label=side)
        panel.plot(row["hindsight"]["simulated"]["ms"], row["quantiles"], ":", color="#555555",
                   label="simulated, in hindsight")  # fmt: skip
        panel.set_xscale("log")
        plain_ticks(panel.xaxis)
        mark = "" if row["agrees"] else " (off)"
        panel.set_title(f"{row['policy']}, {row['model']}, load {row['load']:g}{mark}", fontsize=9)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.suptitle("Live and simulated: curves that coincide agree", fontsize=10)
    figure.supxlabel("latency, ms", fontsize=9)
    figure.supylabel("fraction of answers", fontsize=9)
    save(figure, path)
