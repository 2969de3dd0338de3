"""Pictures of the benchmarks, drawn without a display. Each takes a record as `bench` wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

STYLES: dict[str, dict[str, Any]] = {
    "space-time": {"color": "#c1272d", "linewidth": 2.4, "marker": "o", "zorder": 5},
    "space-only": {"color": "#0072b2", "linewidth": 1.5, "marker": "s"},
    "time-only": {"color": "#009e73", "linewidth": 1.5, "marker": "^"},
    "python loop": {"color": "#7f7f7f", "linewidth": 1.1, "linestyle": "--"},
    "vmap": {"color": "#cc79a7", "linewidth": 1.1, "linestyle": "--"},
    "thread pool": {"color": "#e69f00", "linewidth": 1.1, "linestyle": "--"},
    "one batch": {"color": "#000000", "linewidth": 1.1, "linestyle": ":"},
}
COLUMNS = 4


def draw_flops(record: dict[str, Any], path: Path) -> None:
    """GFLOP/s against the number of tenants, a panel for each problem, to a PNG file."""
    problems = [*dict.fromkeys(row["problem"] for row in record["rows"])]
    figure, panels = grid(len(problems))
    for problem, axes in zip(problems, panels, strict=True):
        rows = [row for row in record["rows"] if row["problem"] == problem]
        _flops_panel(axes, problem, rows)
    for axes in panels[::COLUMNS]:
        axes.set_ylabel("GFLOP/s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"R tenants of one layer, other weights each: {record['cores']} cores, {record['cpu']}, "
        f"fp32, peak {record['peak']['gflops']:.0f} GFLOP/s; higher is better",
        fontsize=11,
    )
    save(figure, path)


def _flops_panel(axes: Axes, problem: str, rows: list[dict[str, Any]]) -> None:
    tenants = [row["tenants"] for row in rows]
    for way, style in STYLES.items():
        axes.plot(tenants, [row["gflops"][way] for row in rows], label=way, markersize=4, **style)
    axes.set_title(problem, fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tenants, [str(count) for count in tenants])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tenants R")


def draw_dispatch(record: dict[str, Any], path: Path) -> None:
    """Latency (a bar from p50 to p99) and requests a second of every way, to a PNG file."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    latency, rate = figure.subplots(1, 2)
    timed = [row for row in record["rows"] if "p50_us" in row][::-1]
    low, high = ([row[key] for row in timed] for key in ("p50_us", "p99_us"))
    wide = [b - a for a, b in zip(low, high, strict=True)]
    names = [row["way"] for row in timed]
    bars = latency.barh(names, wide, left=low, color="#0072b2", height=0.5)
    spans = [f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True)]
    latency.bar_label(bars, spans, padding=3, fontsize=8)
    latency.set_xscale("log")
    latency.set_xlim(min(low) / 1.3, 3 * max(high))  # room for the figures
    plain_ticks(latency.xaxis)
    latency.set_xlabel("µs for one request alone, p50 to p99; less is better")
    rated = [row for row in record["rows"] if "rps" in row][::-1]
    thousands = [row["rps"] / 1000 for row in rated]
    bars = rate.barh([row["way"] for row in rated], thousands, color="#c1272d", height=0.5)
    rate.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    rate.margins(x=0.12)
    rate.set_xlabel("thousand requests/s; more is better")
    for axes in (latency, rate):
        axes.grid(visible=True, axis="x", color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    title = f"Dispatching launches that do nothing: {record['cores']} cores, {record['cpu']}"
    figure.suptitle(title, fontsize=11)
    save(figure, path)


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


def grid(count: int, columns: int = COLUMNS, *, legend: bool = True) -> tuple[Figure, list[Axes]]:
    """grid: a figure of `count` panels, so many a row, with room for a `legend` below."""
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
    """plain_ticks: 1, 2, 5, 10 ... on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=140)
