"""What many pictures share: a grid of panels, ticks, the look of a way of serving, a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

# How each way of running many tenants is drawn.
WAY_STYLES: dict[str, dict[str, Any]] = {
    "space-time": {"color": "#c1272d", "linewidth": 2.4, "marker": "o", "zorder": 5},
    "space-only": {"color": "#0072b2", "linewidth": 1.5, "marker": "s"},
    "time-only": {"color": "#009e73", "linewidth": 1.5, "marker": "^"},
    "python loop": {"color": "#7f7f7f", "linewidth": 1.1, "linestyle": "--"},
    "vmap": {"color": "#cc79a7", "linewidth": 1.1, "linestyle": "--"},
    "thread pool": {"color": "#e69f00", "linewidth": 1.1, "linestyle": "--"},
    "one batch": {"color": "#000000", "linewidth": 1.1, "linestyle": ":"},
}
COLUMNS = 4  # panels side by side


def grid(count: int, columns: int = COLUMNS, *, legend: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `columns` side by side, with room below for a `legend`."""
    columns = min(count, columns)
    lines = -(-count // columns)
    size = (max(3.4 * columns, 9.0), 2.7 * lines + 1.0)
    legend_frac = 0.5 / size[1] if legend else 0.0
    above_legend = ConstrainedLayoutEngine(rect=(0, legend_frac, 1, 1 - legend_frac))
    figure = Figure(figsize=size, layout=above_legend)
    panels = [figure.add_subplot(lines, columns, place + 1) for place in range(count)]
    for axes in panels:
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, panels


def plain_ticks(axis: Axis) -> None:
    """Labels 1, 2, 5, 10, 20 and so on, on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> None:
    """The figure as a PNG file; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=140)
