"""The picture of `bench models`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import grid, save

SERVER_STYLES: dict[str, dict[str, Any]] = {
    "time-only": {"color": "#009e73"},
    "space-only": {"color": "#0072b2"},
    "space-time": {"color": "#c1272d"},
    "loop, eager": {"color": "#4d4d4d"},
    "loop, TorchScript": {"color": "#4d4d4d", "hatch": "////", "alpha": 0.6},
    "threads, eager": {"color": "#b0b0b0"},
    "threads, TorchScript": {"color": "#b0b0b0", "hatch": "////", "alpha": 0.6},
    "processes": {"color": "#e69f00"},
    "vmap ensemble": {"color": "#cc79a7"},
}


def draw_models(record: dict[str, Any], path: Path) -> None:
    """Answers per second of every server, closed loop above, open loop below, to a PNG file."""
    models = [*dict.fromkeys(row["model"] for row in record["rows"])]
    kinds = [("closed", "throughput_rps", "tenants", "tenants R")]
    if any(row["loop"] == "open" for row in record["rows"]):
        kinds.append(("open", "goodput_rps", "load", "load, in parts of time-only's closed loop"))
    figure, panels = grid(len(models) * len(kinds), columns=len(models))
    places = ((kind, model) for kind in kinds for model in models)
    for axes, ((loop, quantity, key, word), model) in zip(panels, places, strict=True):
        rows = [row for row in record["rows"] if (row["model"], row["loop"]) == (model, loop)]
        _bars(axes, rows, quantity, key)
        axes.set_title(f"{model}, {loop} loop", fontsize=10)
        axes.set_xlabel(word, fontsize=9)
    for place, word in enumerate(("answers/s", "answers in time/s")[: len(kinds)]):
        panels[place * len(models)].set_ylabel(word)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = -(-len(labels) // (1 if len(models) > 2 else 2))
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=9)
    title = f"R models served by {record['cores']} cores, {record['cpu']}; higher is better"
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _bars(axes: Axes, rows: list[dict[str, Any]], quantity: str, key: str) -> None:
    """A group of bars for each row, one bar a server."""
    shown = [name for name in SERVER_STYLES if any(name in row[quantity] for row in rows)]
    width = 0.85 / max(1, len(shown))
    for place, name in enumerate(shown):
        heights = [row[quantity].get(name, 0.0) for row in rows]
        lefts = [group + (place - len(shown) / 2) * width for group in range(len(rows))]
        axes.bar(lefts, heights, width, align="edge", label=name, edgecolor="white", linewidth=0,
                 **SERVER_STYLES[name])  # fmt: skip
    axes.set_xticks(range(len(rows)), [str(row[key]) for row in rows])
    axes.grid(visible=False, axis="x")
