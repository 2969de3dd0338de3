"""The picture of `bench moves`: attainment over time, and when the session moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots.axes import save


def draw_moves(record: dict[str, Any], path: Path) -> None:
    """Rates above, attainment by step below, a mark for every move, to a PNG file."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    rates, attained = figure.subplots(2, 1, sharex=True)
    edges = [step * record["step_s"] for step in range(len(record["rates_rps"]) + 1)]
    for tenant, values in enumerate(zip(*record["rates_rps"], strict=True)):
        rates.stairs(values, edges, label=f"tenant {tenant}")
    rates.set_ylabel("requests/s")
    rates.legend(fontsize=8)
    for row, color in zip(record["rows"], ("#555555", "#1f77b4", "#c1272d"), strict=False):
        attained.stairs(row["attainment_by_step"], edges, baseline=None, color=color,
                        label=row["way"])  # fmt: skip
        if row["way"] == "controller":
            for event in row["events"]:
                attained.axvline(event["at_s"], color=color, linestyle=":", linewidth=0.8)
    attained.set_ylim(0, 1.02)
    attained.set_ylabel("answered in time")
    attained.set_xlabel("seconds (dotted: the controller planned)")
    attained.legend(fontsize=8)
    save(figure, path)
