"""The picture of `bench overload`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots.axes import WAY_STYLES, save


def draw_overload(record: dict[str, Any], path: Path) -> None:
    """Answers in time against load, and what became of all at the highest, to a PNG file."""
    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = [*dict.fromkeys(row["way"] for row in record["rows"])]
    for way in ways:
        rows = [row for row in record["rows"] if row["way"] == way]
        loads, good = ([row[key] for row in rows] for key in ("load", "goodput_rps"))
        left.plot(loads, good, label=way, **WAY_STYLES[way])
    left.set_ylim(bottom=0)
    left.set_title("higher is better", fontsize=10)
    left.set_xlabel("offered, in parts of what each answers in a closed loop")
    left.set_ylabel(f"answers within {record['slo_ms']:.0f} ms, a second")
    left.legend(frameon=False, fontsize=8)
    worst = [[row for row in record["rows"] if row["way"] == way][-1] for way in ways]
    bottom = [0.0] * len(ways)
    parts = {"answered": "#009e73", "deadline": "#e69f00", "queue-full": "#999999",
             "failed": "#c1272d"}  # fmt: skip
    for part, colour in parts.items():
        share = [100 * row[part] / row["offered"] for row in worst]
        if not any(share):
            continue  # the legend names what is there
        right.bar(ways, share, bottom=bottom, color=colour, label=part, width=0.55)
        bottom = [a + b for a, b in zip(bottom, share, strict=True)]
    right.set_ylabel(f"% of what was offered at {worst[0]['load']:g} x")
    right.set_ylim(0, 128)
    right.set_yticks(range(0, 101, 20))
    right.legend(frameon=False, fontsize=8, ncols=4, loc="upper center")
    for axes in (left, right):
        axes.grid(visible=True, axis="y", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(f"Overload: {record['cores']} cores, {record['cpu']}", fontsize=11)
    save(figure, path)
