"""What `spacetime top` shows, made to fit: columns that matter least go first where it is narrow,
tenants that do least where it is low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

# In the order of what matters.
_TENANT_COLUMNS = {
    "/s": "answered_rps", "in time": "attainment", "p99 ms": "p99_ms", "lane": "lanes",
    "pending": "pending", "queue ms": "queue_ms", "mean ms": "latency_ms", "batch": "mean_batch",
    "failed": "failed", "answered": "answered",
}  # fmt: skip
_UNITS = {"cores": ("core", "cores"), "sm": ("SM", "SMs"), "mps": ("%", "%"),
          "mig": ("slice", "slices")}  # fmt: skip
_MOST_LANES = 3  # that a tenant's cell names
_LANE_COLUMNS = {
    "units": "units", "used": "units_used", "/s": "launches_ps",
    "tenants/launch": "tenants_per_launch", "samples/launch": "samples_per_launch",
    "launches": "launches",
}  # fmt: skip
_RATES = ("answered_rps", "launches_ps", "units_used")  # need two readings
_FRAME = 4  # lines of a table around its rows
_LEAST_ROWS = 3
_ENDLESS = 1_000_000  # lines


def tables(
    shown: Mapping[str, Any], width: int, height: int = _ENDLESS, trouble: str = ""
) -> Group:
    """A summary as lines and two tables within `width` cells and, if it can be, `height` lines."""
    lines = [*_facts(shown), *_controller(shown["controller"])]
    parts: list[RenderableType] = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
    used = len(lines) + 2 * -(-cell_len(trouble) // width)  # words leave room at the ends
    if trouble:
        parts.append(Text(trouble, style="bold red", overflow="fold"))
    room = height - used - 2 * _FRAME
    granted = {name: row for name, row in shown["lanes"].items() if row["units"]}
    tenants = _busiest(shown["tenants"], room - min(len(granted), _LEAST_ROWS), "answered")
    tenants = {
        name: {**row, "lanes": _runs_on(row["lanes"], granted)} for name, row in tenants.items()
    }
    lanes = {
        name: {**row, "units": _measured(row["units"], row["kind"])}
        for name, row in _busiest(granted, room - len(tenants), "launches").items()
    }
    rated = shown["seconds"] is not None
    of = _titled("tenant", shown["tenants"], tenants)
    parts.append(_table(of, _TENANT_COLUMNS, tenants, width, rated=rated))
    of = _titled("lane", granted, lanes)
    parts.append(_table(of, _LANE_COLUMNS, lanes, width, rated=rated))
    return Group(*parts)


def _runs_on(parts: Mapping[str, float], granted: Mapping[str, Any]) -> str:
    """The lanes of a tenant, with its part on each; `any` where each request chooses anew."""
    if parts and not any(parts.values()):
        return "any" if set(granted) <= set(parts) else ", ".join(parts)
    order = sorted(parts, key=lambda lane: -parts[lane])
    if len(order) < 2:
        return "".join(order) or "-"
    more = f" +{len(order) - _MOST_LANES}" if len(order) > _MOST_LANES else ""
    return ", ".join(f"{lane}: {parts[lane]:.0%}" for lane in order[:_MOST_LANES]) + more


def _measured(units: float, kind: str) -> str:
    single, plural = _UNITS.get(kind, ("unit", "units"))
    return f"{units:g} {single if units == 1 else plural}"


def _facts(shown: Mapping[str, Any]) -> Sequence[str]:
    over = "since the start" if shown["seconds"] is None else f"last {shown['seconds']:.1f} s"
    ends = [] if shown["seconds"] is None else ["q ends"]
    told = "  ".join(
        [f"spacetime {shown['version']}", shown["device"], shown["policy"], over, *ends]
    )
    return [told] if shown["ready"] else [told, "stopping: new requests are refused"]


def _titled(of: str, rows: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    return of if len(rows) == len(kept) else f"{of} (+{len(rows) - len(kept)})"


def _controller(done: Mapping[str, Any] | None) -> Sequence[str]:
    if done is None:
        return ()
    if not done["running"]:
        return ("the controller has failed: see the server's journal; its last plan goes on",)
    last = done["last_replan"]
    when = "" if last is None else f", last at {datetime.fromtimestamp(last):%H:%M:%S}"
    counts = f"{done['move']:.0f} moves, {done['stay']:.0f} stays, {done['refused']:.0f} refused"
    return (f"re-plans: {counts}{when}; {done['planned_units']:.0f} units planned",)


def _busiest(rows: Mapping[str, Any], room: int, by: str) -> Mapping[str, Any]:
    """The rows there is room for, in their order."""
    order = sorted(rows, key=lambda name: rows[name].get("pending", 0) + rows[name][by])
    kept = {*order[-max(room, _LEAST_ROWS) :]}
    return {name: row for name, row in rows.items() if name in kept}


def _table(
    of: str, columns: Mapping[str, str], rows: Mapping[str, Any], width: int, *, rated: bool
) -> Table:
    cells = {
        title: [_shown(key, row[key]) for row in rows.values()]
        for title, key in columns.items()
        if rated or key not in _RATES
    }
    name = max(len(of), min(max(map(cell_len, (of, *rows))), width // 4))
    left, kept = width - name - 2, []
    for title, column in cells.items():
        left -= 3 + max(map(cell_len, (title, *column)))
        if left < 0:
            break
        kept.append(title)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(of, no_wrap=True, max_width=name)
    for title in kept:
        table.add_column(title, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(Text(row), *(cells[title][number] for title in kept))
    return table


def _shown(key: str, value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if key == "attainment":
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
