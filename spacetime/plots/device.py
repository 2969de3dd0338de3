"""Pictures of the benchmarks of CUDA devices. Each takes a record as `bench` wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from spacetime.plots.axes import grid, save

STYLES: dict[str, dict[str, Any]] = {
    "space-time": {"color": "#c1272d", "linewidth": 2.4, "marker": "o", "zorder": 5},
    "loop": {"color": "#009e73", "linewidth": 1.5, "marker": "^"},
    "graph, serial": {"color": "#009e73", "linewidth": 1.1, "linestyle": "--"},
    "streams": {"color": "#0072b2", "linewidth": 1.5, "marker": "s"},
    "graph, branches": {"color": "#0072b2", "linewidth": 1.1, "linestyle": "--"},
    "cuBLAS batched": {"color": "#e69f00", "linewidth": 1.5, "marker": "v"},
    "cuDNN grouped": {"color": "#e69f00", "linewidth": 1.1, "linestyle": "--"},
    "vmap": {"color": "#cc79a7", "linewidth": 1.1, "linestyle": "--"},
    "torch.compile": {"color": "#7f7f7f", "linewidth": 1.1, "marker": "x"},
    "one batch": {"color": "#000000", "linewidth": 1.1, "linestyle": ":"},
}


def draw_device_flops(record: dict[str, Any], path: Path) -> None:
    """TFLOP/s against R, a panel for each problem and precision (D-STS, figure 7), to a PNG."""
    cases = [*dict.fromkeys((row["problem"], row["precision"]) for row in record["rows"])]
    figure, panels = grid(len(cases), columns=3)
    for (problem, precision), axes in zip(cases, panels, strict=True):
        rows = [
            row
            for row in record["rows"]
            if (row["problem"], row["precision"]) == (problem, precision)
        ]
        _rates(axes, rows)
        axes.set_title(f"{problem}, {precision}", fontsize=10)
    panels[0].set_ylabel("TFLOP/s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(f"R tenants of one layer, other weights each: {record['device']}", fontsize=11)
    save(figure, path)


def _rates(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for way, style in STYLES.items():
        points = [(row["tenants"], row["tflops"][way]) for row in rows if way in row["tflops"]]
        axes.plot(
            *zip(*points, strict=True) if points else ([], []), label=way, markersize=4, **style
        )
    tenants = [row["tenants"] for row in rows]
    axes.set_xscale("log", base=2)
    axes.set_xticks(tenants, [str(count) for count in tenants])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tenants R")


def draw_partition(record: dict[str, Any], path: Path) -> None:
    """Product rate and bandwidth of a partition against its SMs, to a PNG file."""
    figure, panels = grid(2)
    sms = [row["sms"] for row in record["rows"]]
    kinds = (("tflops", "bf16 product, TFLOP/s"), ("gbs", "copy by SMs, GB/s"))
    for (quantity, label), axes in zip(kinds, panels, strict=True):
        rates = [row[quantity] for row in record["rows"]]
        axes.plot(sms, rates, color="#c1272d", marker="o", markersize=4)
        axes.plot([0, sms[-1]], [0, rates[-1]], color="#7f7f7f", linestyle=":", linewidth=1)
        axes.set_xlabel("SMs of the partition")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    switch, create = (record[kind]["median"] for kind in ("switch_us", "create_us"))
    figure.suptitle(
        f"{record['device']}{', virtual time' * record['virtual']}: a launch on another rung takes "
        f"{switch:.1f} µs, a new partition {create:.0f} µs",
        fontsize=10,
    )
    save(figure, path)


def draw_device_models(record: dict[str, Any], path: Path) -> None:
    """Milliseconds of the device for one request of each tenant, a bar a way, to a PNG file."""
    figure, panels = grid(max(1, len(record["rows"])))
    for row, axes in zip(record["rows"], panels, strict=False):
        ways = [way for way in STYLES if way in row["us"]]
        colours = [STYLES[way]["color"] for way in ways]
        axes.barh(ways[::-1], [row["us"][way] / 1e3 for way in ways[::-1]], color=colours[::-1])
        axes.set_title(f"{row['model']}, R={row['tenants']}, {row['precision']}", fontsize=10)
        axes.set_xlabel("ms of the device")
    figure.suptitle(f"One request of each tenant: {record['device']}", fontsize=11)
    save(figure, path)
