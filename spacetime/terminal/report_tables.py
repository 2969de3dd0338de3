"""Tables that several commands print of a report, of a run or of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacetime.terminal.tables import FittedTable


def tenants_table(report: Mapping[str, Any]) -> FittedTable:
    """A row a tenant of a report, of a run or a simulation."""
    rows = []
    for name, row in report["tenants"].items():
        latency, batch = row["latency_ms"], row["mean_batch"]
        rows.append((
            name, f"{row['slo_ms']:g}", f"{row['offered']:,}",
            f"{sum(row['dropped'].values()):,}", percent(row["attainment"]),
            f"{latency['p50']:.4g}", f"{latency['p99']:.4g}",
            f"{row['throughput_rps'] or 0:.4g}", "-" if batch is None else f"{batch:.3g}",
        ))  # fmt: skip
    heads = ("tenant", "SLO ms", "offered", "dropped", "in time", "p50 ms", "p99 ms",
             "req/s", "batch")  # fmt: skip
    return FittedTable(heads, rows, words=("tenant",))


def percent(fraction: float | None) -> str:
    """Two places, a dash for what was not measured."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
