"""The picture of `spacetime demo`, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen before

from spacetime.plots.axes import plain_ticks

# Okabe and Ito's palette: told apart by people with any kind of colour vision.
COLOURS = {"time-only": "#999999", "space-only": "#E69F00", "space-time": "#0072B2"}
INK = "#333333"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True)
class PolicyCurve:
    """One policy's part of the picture; `latencies_ms` of what was answered of `offered`."""

    name: str
    throughput_rps: float
    goodput_rps: float
    offered: int
    latencies_ms: Sequence[float]


def policies(
    path: Path, curves: Sequence[PolicyCurve], *, title: str, offered_rps: float, slo_ms: float
) -> None:
    """Throughput by policy, and which share of all requests was answered within which time."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 4), width_ratios=(2, 3), layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        _throughput(left, curves, offered_rps)
        _latency(right, curves, slo_ms)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _throughput(axes: Any, curves: Sequence[PolicyCurve], offered_rps: float) -> None:
    # The number stands under its bar, where no other bar or line can cross it.
    names = [f"{curve.name}\n{curve.goodput_rps:,.0f}" for curve in curves]
    colours = [COLOURS[curve.name] for curve in curves]
    answered = [curve.throughput_rps for curve in curves]
    axes.bar(names, answered, color=colours, width=0.65, alpha=0.35)
    axes.bar(names, [curve.goodput_rps for curve in curves], color=colours, width=0.65)
    axes.axhline(offered_rps, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"offered {offered_rps:,.0f}", (-0.45, offered_rps), xytext=(0, 3),
        textcoords="offset points", fontsize=9,
    )  # fmt: skip
    axes.set_ylim(0, 1.15 * max(offered_rps, *answered))
    axes.set_title("In time a second (pale: late); more is better")
    axes.tick_params(axis="x", length=0)


def _latency(axes: Any, curves: Sequence[PolicyCurve], slo_ms: float) -> None:
    for curve in curves:
        times = np.sort(np.asarray(curve.latencies_ms, dtype=float))
        share = 100 * np.arange(1, len(times) + 1) / curve.offered
        axes.plot(times, share, color=COLOURS[curve.name], linewidth=2, label=curve.name)
    axes.axvline(slo_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"objective {slo_ms:.3g} ms", (slo_ms, 3), xytext=(4, 0), textcoords="offset points",
        fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(right=3 * slo_ms)
    plain_ticks(axes.xaxis)
    axes.set_ylim(0, 104)
    axes.set_xlabel("latency, ms")
    axes.set_title("Answered within a latency, % of all offered; higher is better")
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", facecolor="white", edgecolor="none", framealpha=1)
