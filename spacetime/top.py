"""`spacetime top`: a server's metrics as a table that keeps itself up to date.

Reads the metrics port, so it watches a remote server as well, and any number may watch.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from spacetime.errors import InvalidInput

TIMEOUT_S = 10.0
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: values by name and by what they are of, and when it was taken."""

    time_s: float
    models: Mapping[str, Values]
    lanes: Mapping[str, Values]
    facts: Mapping[str, str]


def from_options(
    *, url: str, token_file: Path | None, interval: float, once: bool, as_json: bool
) -> None:
    """Shows it until interrupted, or once. Raises InvalidInput for an address nobody answers."""
    token = None if token_file is None else _token(token_file)
    first = read(url, token)
    if as_json:
        print(json.dumps(summary(first, None), indent=2))
        return
    if once:
        Console().print(tables(summary(first, None)))
        return
    with Live(tables(summary(first, None)), auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(interval)
                last, first = first, read(url, token)
                live.update(tables(summary(first, last)), refresh=True)
        except KeyboardInterrupt:
            return


def read(url: str, token: str | None = None) -> Reading:
    """The metrics at an address. Raises InvalidInput."""
    if not url.startswith(("http://", "https://")):
        raise InvalidInput("-", "url", "http://HOST:PORT/metrics", url)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return parse(answer.read().decode(), time.monotonic())
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = str(getattr(error, "reason", error))
        raise InvalidInput("-", "url", "a server's metrics", f"{url}: {reason}") from None


def parse(text: str, time_s: float) -> Reading:
    """A reading of the text that a metrics port gives. Raises ValueError for another text."""
    models: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    lanes: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    facts: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for named, labels, value, *_ in family.samples:
            # The parser gives every counter a `_total`; Triton's have none.
            name = named.removesuffix("_total") if named.startswith("nv_") else named
            if name == "spacetime_info":
                facts = dict(labels)
            elif "model" in labels:
                models[labels["model"]][name] += value
            elif "lane" in labels:
                lanes[labels["lane"]][name] += value
    if not facts:
        raise ValueError("these are no metrics of spacetime")
    return Reading(time_s, models, lanes, facts)


def summary(now: Reading, last: Reading | None) -> dict[str, Any]:
    """What is shown: rates since `last`, or counts since the start where there is none."""
    seconds = None if last is None else now.time_s - last.time_s
    return {
        **now.facts,
        "seconds": seconds,
        "tenants": {
            name: _tenant(_since(values, None if last is None else last.models.get(name)), seconds)
            | {
                "pending": values["nv_inference_pending_request_count"],
                "p99_ms": 1e3 * values["spacetime_latency_p99_seconds"],
            }
            for name, values in now.models.items()
        },
        "lanes": {
            name: _lane(_since(values, None if last is None else last.lanes.get(name)), seconds)
            | {"units": values["spacetime_units"]}
            for name, values in now.lanes.items()
        },
    }


def _since(values: Values, last: Values | None) -> Values:
    """The growth of each; a value that fell has started anew."""
    before = last or {}
    grown = {
        name: value - (old if (old := before.get(name, 0.0)) <= value else 0.0)
        for name, value in values.items()
    }
    return defaultdict(float, grown)


def _tenant(grown: Values, seconds: float | None) -> dict[str, float | None]:
    answered = grown["nv_inference_request_success"]
    met, missed = grown["spacetime_slo_met_total"], grown["spacetime_slo_miss_total"]
    return {
        "answered": answered,
        "answered_rps": None if seconds is None else answered / seconds,
        "failed": grown["nv_inference_request_failure"],
        "attainment": _ratio(met, met + missed),
        "mean_batch": _ratio(grown["nv_inference_count"], grown["nv_inference_exec_count"]),
        "queue_ms": _ratio(grown["nv_inference_queue_duration_us"] / 1e3, answered),
        "latency_ms": _ratio(grown["nv_inference_request_duration_us"] / 1e3, answered),
    }


def _lane(grown: Values, seconds: float | None) -> dict[str, float | None]:
    launches = grown["spacetime_launches_total"]
    used = grown["spacetime_units_used_seconds_total"]
    return {
        "launches": launches,
        "launches_ps": None if seconds is None else launches / seconds,
        "units_used": None if seconds is None else used / seconds,
        "tenants_per_launch": _ratio(grown["spacetime_launch_tenants_total"], launches),
        "samples_per_launch": _ratio(grown["spacetime_launch_samples_total"], launches),
    }


def tables(shown: Mapping[str, Any]) -> Group:
    """A summary as two tables."""
    over = "since the start" if shown["seconds"] is None else f"last {shown['seconds']:.1f} s"
    title = f"spacetime {shown['version']}  {shown['device']}  {shown['policy']}  {over}"
    tenants = _table(title, "tenant", _TENANT_COLUMNS, shown["tenants"])
    return Group(tenants, _table("", "lane", _LANE_COLUMNS, shown["lanes"]))


_TENANT_COLUMNS = {
    "answered": "answered", "/s": "answered_rps", "failed": "failed", "pending": "pending",
    "in time %": "attainment", "batch": "mean_batch", "queue ms": "queue_ms", "ms": "latency_ms",
    "p99 ms": "p99_ms",
}  # fmt: skip
_LANE_COLUMNS = {
    "units": "units", "used": "units_used", "launches": "launches", "/s": "launches_ps",
    "tenants/launch": "tenants_per_launch", "samples/launch": "samples_per_launch",
}  # fmt: skip


def _table(title: str, of: str, columns: Mapping[str, str], rows: Mapping[str, Any]) -> Table:
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(of, min_width=8)
    for name in columns:
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_shown(key, row[key]) for key in columns.values()))
    return table


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key == "attainment":
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _token(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("-", "token_file", "a file with a token", f"{path}: {error}") from None
    if not lines:
        raise InvalidInput("-", "token_file", "a file with a token", f"{path}, which is empty")
    return lines[0]
