"""The picture of a comparison of planners, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch


def draw_compare(record: dict[str, Any], path: Path) -> None:
    """Devices, and the worst tenant's attainment, by scenario and planner: a PNG.

    Bars of plans that break an objective in simulation are hatched; a refusal has no bar.
    """
    rows = record["rows"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    planners = list(dict.fromkeys(row["planner"] for row in rows))
    inches = max(6.0, 1.2 + 0.22 * len(scenarios) * len(planners))
    figure = Figure(figsize=(min(inches, 40.0), 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subplots(2, 1, sharex=True)
    for number, planner in enumerate(planners):
        width = 0.8 / len(planners)
        of = [row for row in rows if row["planner"] == planner and row["refused"] is None]
        places = [scenarios.index(row["scenario"]) - 0.4 + (number + 0.5) * width for row in of]
        for axes, measure in ((top, "gpus"), (below, "worst_attainment")):
            bars = axes.bar(places, [row[measure] for row in of], width,
                            color=f"C{number % 10}")  # fmt: skip
            for bar, row in zip(bars, of, strict=True):
                if not row["keeps"]:
                    bar.set_hatch("///")
    _bounds(top, rows, scenarios)
    top.set_ylabel("devices (line: proven bound)")
    below.set_ylabel("attainment of the worst tenant")
    below.axhline(record["demanded_attainment"], color="black", linewidth=0.8, linestyle="--")
    below.set_xticks(range(len(scenarios)), scenarios)
    figure.legend(
        handles=[Patch(color=f"C{n % 10}", label=name) for n, name in enumerate(planners)],
        loc="outside right upper", fontsize=8,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def _bounds(axes: Axes, rows: list[dict[str, Any]], scenarios: list[str]) -> None:
    for row in rows:
        if row["lower_bound_gpus"] is not None:
            place = scenarios.index(row["scenario"])
            axes.hlines(row["lower_bound_gpus"], place - 0.42, place + 0.42, color="black",
                        linewidth=1.0)  # fmt: skip
