"""Pictures of predictions beside measurements. Each takes a record as a benchmark wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.ticker import StrMethodFormatter

from spacetime.plots.axes import WAY_STYLES, grid, save


def draw_dsts(record: dict[str, Any], path: Path) -> None:
    """GFLOP/s against tenants: the paper's points and the predicted curves, to a PNG file."""
    figure, (axes, close) = grid(2, columns=2)
    for panel, modes in ((axes, list(record["curve"])), (close, list(record["curve"])[1:])):
        for mode in modes:
            colour = WAY_STYLES[mode]["color"]
            error = record["error"]["off"][mode]
            panel.plot(record["tenants"], record["curve"][mode], color=colour, linewidth=1.2,
                       label=f"{mode}: predicted, {error:.1%} off")  # fmt: skip
            panel.plot([row["tenants"] for row in record["rows"]],
                       [row["paper"][mode] for row in record["rows"]], "o", color=colour,
                       markersize=4, label=f"{mode}: paper")  # fmt: skip
        panel.set_xlabel("tenants R")
        panel.set_ylim(bottom=0)
    axes.set_ylabel("GFLOP/s")
    axes.set_title("all three modes", fontsize=10)
    close.set_title("the two baselines alone", fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
    period = record["facts"]["period"]
    figure.suptitle(f"D-STS Fig. 7, V100 fp32: a wave holds {period} tenants", fontsize=11)
    save(figure, path)


def draw_cost(record: dict[str, Any], path: Path) -> None:
    """Predicted against measured of every point, and the error of each model, to a PNG file."""
    figure, (cloud, bars) = grid(2, columns=2)
    figure.set_size_inches(11, 4.8)
    reach = [value for row in record["rows"] for pair in row["pairs"] for value in pair]
    ends = (min(reach), max(reach))
    cloud.plot(ends, ends, color="#000000", linewidth=0.8)
    families = list(dict.fromkeys(row["family"] for row in record["rows"]))
    for number, family in enumerate(families):
        pairs = [p for row in record["rows"] if row["family"] == family for p in row["pairs"]]
        measured, predicted = zip(*pairs, strict=True)
        cloud.plot(measured, predicted, ".", markersize=2, color=f"C{number}", label=family)
    cloud.set_xscale("log")
    cloud.set_yscale("log")
    for axis in (cloud.xaxis, cloud.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    cloud.set_xlabel("measured, ms a batch")
    cloud.set_ylabel("predicted, ms a batch")
    cloud.set_title("each model left out of the fit", fontsize=10)
    names = [row["model"] for row in record["rows"]]
    for offset, of, colour in ((-0.2, "left_out", "#c1272d"), (0.2, "family_out", "#7f7f7f")):
        places = [place + offset for place in range(len(names))]
        label = {"left_out": "fitted without the model", "family_out": "without its family"}[of]
        bars.bar(places, [100 * row[of] for row in record["rows"]], 0.38, color=colour, label=label)
    bars.axhline(100 * record["goal"], color="#000000", linewidth=0.8, linestyle=":", label="goal")
    bars.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    bars.set_ylabel("mean error, %; less is better")
    bars.legend(frameon=False, fontsize=8)
    handles, labels = cloud.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False,
                  fontsize=9, markerscale=5)  # fmt: skip
    error = f"median {record['median_left_out']:.0%}"
    figure.suptitle(f"ParvaGPU's A100 profiles from three constants: {error}", fontsize=11)
    save(figure, path)
