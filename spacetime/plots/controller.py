"""The picture of a controller beside a static plan and an oracle, drawn without a display."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

COLOURS = {"static": "#7f7f7f", "controller": "#c1272d", "oracle": "#1f77b4"}


def draw_controller(record: dict[str, Any], path: Path) -> None:
    """Offered load, devices in use and requests missed over time, a column a trace, to a PNG."""
    traces = list(dict.fromkeys(row["trace"] for row in record["rows"]))
    figure = Figure(figsize=(6.5 * len(traces), 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, len(traces), sharex="col", squeeze=False)
    for column, trace in enumerate(traces):
        rows = [row for row in record["rows"] if row["trace"] == trace]
        load, devices, missed = (panels[line][column] for line in range(3))
        _load(load, rows[0])
        load.set_title(trace, fontsize=11)
        for row in rows:
            style = {"color": COLOURS[row["plan"]], "linewidth": 1.3, "label": _label(row)}
            periods = row["periods"]
            devices.step(periods["end_s"], periods["devices"], where="pre", **style)
            missed.plot(periods["end_s"], list(accumulate(periods["missed"])), **style)
        for move in (move for row in rows if row["plan"] == "controller" for move in row["moves"]):
            devices.axvline(move["decided_ns"] / 1e9, color=COLOURS["controller"], alpha=0.15)
        devices.set_ylim(bottom=0)
        devices.legend(fontsize=8, loc="lower center")
        missed.set_xlabel("seconds")
        for axes, text in (
            (load, "requests/s offered"),
            (devices, "devices in use"),
            (missed, "requests missed, summed"),
        ):
            axes.grid(visible=True, alpha=0.3)
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
            if column == 0:
                axes.set_ylabel(text)
    figure.suptitle(
        f"{record['command']}: lines mark the controller's decisions to move; "
        "fewer devices and fewer missed are better",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _load(axes: Axes, row: dict[str, Any]) -> None:
    periods = row["periods"]
    lengths = (end - start for start, end in pairwise([0.0, *periods["end_s"]]))
    rates = [n / length for n, length in zip(periods["arrived"], lengths, strict=True)]
    axes.plot(periods["end_s"], rates, color="black", linewidth=1.0)
    axes.set_ylim(bottom=0)


def _label(row: dict[str, Any]) -> str:
    return (
        f"{row['plan']}: {row['device_s'] / 3600:.2f} device-hours, "
        f"{100 * row['attainment']:.2f} % in time"
    )
