"""The picture of a comparison of planners, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spacetime.plots.axes import save

# Ten colours that are told apart by people with any colour vision; then the same, hatched.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#4d4d4d",
           "#8c564b", "#332288")  # fmt: skip
WORDS = {"gpus": "devices; fewer are better", "worst_attainment": "in time, %; more is better"}


def draw_compare(record: dict[str, Any], path: Path) -> None:
    """Devices, and the worst tenant's attainment, by scenario and planner: a PNG.

    Bars of plans that break an objective in simulation are pale; a refusal has no bar, and is
    named below where there was no other.
    """
    rows = record["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    drawn = list(dict.fromkeys(row["planner"] for row in rows if row["refused"] is None))
    inches = max(8.0, 2.2 + 0.22 * len(scenarios) * max(1, len(drawn)))
    figure = Figure(figsize=(min(inches, 40.0), 6.5), layout="constrained")
    panels = dict(zip(WORDS, figure.subplots(2, 1, sharex=True), strict=True))
    for number, planner in enumerate(drawn):
        of = [row for row in rows if row["planner"] == planner and row["refused"] is None]
        places = [scenarios.index(r["scenario"]) - 0.4 + (number + 0.5) * 0.8 / len(drawn)
                  for r in of]  # fmt: skip
        for measure, axes in panels.items():
            _bars(axes, places, of, measure, look=_look(number) | {"width": 0.8 / len(drawn)})
    _bounds(panels["gpus"], rows, scenarios)
    for measure, axes in panels.items():
        axes.set_ylabel(WORDS[measure])
        axes.margins(y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    panels["gpus"].set_title("Devices planned (line: proven bound)", fontsize=10, loc="left")
    below = panels["worst_attainment"]
    below.set_title("Requests of the worst tenant, simulated (dashes: demanded)", fontsize=10,
                    loc="left")  # fmt: skip
    below.axhline(100 * record["demanded_attainment"], color="black", linewidth=0.8,
                  linestyle="--")  # fmt: skip
    below.set_xticks(range(len(scenarios)), scenarios)
    below.set_xlim(-0.5, len(scenarios) - 0.5)
    _legend(figure, drawn, rows)
    save(figure, path)


def _look(number: int) -> dict[str, Any]:
    """A planner's bars: no two of twenty look alike."""
    hatched = "xxxx" if number >= len(COLOURS) else None
    return {"facecolor": COLOURS[number % len(COLOURS)], "edgecolor": "white", "hatch": hatched,
            "linewidth": 0}  # fmt: skip


def _bars(
    axes: Axes, places: list[float], rows: list[dict[str, Any]], measure: str, *,
    look: dict[str, Any],
) -> None:  # fmt: skip
    scale = 100 if measure == "worst_attainment" else 1
    values = [scale * row[measure] for row in rows]
    bars = axes.bar(places, values, **look)
    texts = [f"{value:.4g}" for value in values]
    axes.bar_label(bars, texts, fontsize=7, padding=2, rotation=90 if scale == 100 else 0)
    for bar, row in zip(bars, rows, strict=True):
        if not row["keeps"]:
            bar.set_alpha(0.35)


def _legend(figure: Figure, drawn: list[str], rows: list[dict[str, Any]]) -> None:
    """The planners that have a bar; pale, if any is; and who refused every scenario."""
    handles = [Patch(label=name, **_look(n)) for n, name in enumerate(drawn)]
    if any(row["refused"] is None and not row["keeps"] for row in rows):
        handles.append(Patch(facecolor="#4d4d4d", alpha=0.35, label="pale: an objective is missed"))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    refused = [name for name in dict.fromkeys(row["planner"] for row in rows) if name not in drawn]
    if refused:
        figure.supxlabel(f"refused every scenario: {', '.join(refused)}", fontsize=8)


def _bounds(axes: Axes, rows: list[dict[str, Any]], scenarios: list[str]) -> None:
    for row in rows:
        if row["lower_bound_gpus"] is not None:
            place = scenarios.index(row["scenario"])
            axes.hlines(row["lower_bound_gpus"], place - 0.42, place + 0.42, color="black",
                        linewidth=1.0)  # fmt: skip
