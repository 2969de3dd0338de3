"""The picture of `bench serving`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw_serving(record: Mapping[str, Any], path: Path) -> None:
    """Requests a second and p99 by server and number of connections."""
    rows = record["rows"]
    names = [f"{row['server']}\n{row['connections']} at once" for row in rows]
    figure, (rate, tail) = plt.subplots(1, 2, figsize=(12, 4), constrained_layout=True)
    rate.bar(names, [row["rps"] for row in rows])
    rate.set_ylabel("requests/s")
    tail.bar(names, [row["p50_ms"] for row in rows], label="p50")
    tail.plot(names, [row["p99_ms"] for row in rows], "k_", markersize=18, label="p99")
    tail.set_ylabel("latency, ms")
    tail.legend()
    figure.suptitle("2 ms a batch, at most 16 a batch, one lane or instance")
    figure.savefig(path, dpi=120)
    plt.close(figure)
