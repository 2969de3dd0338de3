"""The picture of `bench dispatch`, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots.axes import plain_ticks, save


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
