"""GET /: what is served, as a page for people, or as JSON where a client prefers that.

The page has no scripts and fetches nothing, so that its security policy can forbid both. What it
shows of a workload, names above all, is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from spacetime.reports.counters import LaneCounters, TenantCounters
from spacetime.server.http.messages import Headers, encode
from spacetime.server.model import ServedModel
from spacetime.server.repository import Repository
from spacetime.server.statistics import misses
from spacetime.version import __version__

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")
_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left;
  vertical-align: top; }
a { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font-size: .9em; white-space: nowrap; }
nav a { display: inline-block; margin: 0 1.5rem .5rem 0; }
@media (max-width: 45rem) {
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: block; border-bottom: 1px solid var(--line); padding: .6rem 0; }
  td { display: flex; gap: 1rem; border: 0; padding: .1rem 0; text-align: left; }
  td::before { content: attr(data-of); flex: 0 0 7rem; opacity: .7; }
  td span { min-width: 0; overflow-x: auto; }
  .number { text-align: left; }
}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_GUARDS: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_EVERY: Headers = [(b"vary", b"accept"), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where else the server listens: the ports of gRPC and of the metrics.

    scheme: `http` or `https`, of HTTP and of the metrics.
    """

    scheme: str
    grpc: int
    metrics: int


def page_facts(repository: Repository, ports: Ports, host: bytes) -> dict[str, Any]:
    """Returns what the page shows.

    host: the request's header, by which its client reaches this machine; links are made of it.
    """
    session = repository.session
    counted = session.counters()
    loaded = repository.models
    return {
        "name": "spacetime",
        "version": __version__,
        "ready": repository.ready,
        "policy": session.policy_name,
        "device": session.device.name,
        "models": [
            state | _model(loaded.get(state["name"]), counted.tenants.get(state["name"]))
            for state in repository.index()
        ],
        "lanes": [_lane(n, session.device.kind, lane) for n, lane in enumerate(counted.lanes)],
        "links": _links(ports, host),
    }


def _model(served: ServedModel | None, counted: TenantCounters | None) -> dict[str, Any]:
    if served is None or counted is None:
        return {}
    described = served.metadata()
    ended = counted.met + sum(misses(counted).values())
    return {
        "inputs": described["inputs"],
        "outputs": described["outputs"],
        "answered": counted.completed,
        "waiting": counted.pending,
        "in_time": counted.met / ended if ended else None,
        "p99_ms": counted.p99_ns / 1e6 if counted.completed else None,
    }


def _lane(number: int, kind: str, lane: LaneCounters) -> dict[str, Any]:
    return {
        "lane": number,
        "kind": kind,
        "units": lane.granted,
        "launches": lane.launches,
        "samples_per_launch": lane.samples / lane.launches if lane.launches else None,
        "tenants_per_launch": lane.tenants / lane.launches if lane.launches else None,
        "busy_s": lane.busy_ns / 1e9,
    }


def _links(ports: Ports, host: bytes) -> dict[str, str]:
    match = _HOST.fullmatch(host)
    name = match[1].decode() if match else "localhost"
    return {
        "server": "/v2",
        "statistics": "/v2/models/stats",
        "description": "/openapi.json",
        "metrics": f"{ports.scheme}://{name}:{ports.metrics}/metrics",
        "grpc": f"{name}:{ports.grpc}",
    }


def page_answer(shown: Mapping[str, Any], accept: bytes) -> tuple[Headers, bytes]:
    """Returns headers and body of the page, as JSON where the header `accept` prefers that."""
    if _wants_json(accept):
        return [(b"content-type", b"application/json"), *_EVERY], encode(shown)
    kind = (b"content-type", b"text/html; charset=utf-8")
    return [kind, *_EVERY, *_GUARDS], _page(shown).encode()


def _wants_json(accept: bytes) -> bool:
    """Whether the header names JSON, and with a larger quality value than HTML."""
    wanted = {b"application/json": 0.0, b"text/html": 0.0}
    for part in accept.lower().split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        if kind in wanted:
            qualities = [p[2:] for p in parameters if p.startswith(b"q=")]
            wanted[kind] = _quality(qualities[0]) if qualities else 1.0
    return wanted[b"application/json"] > wanted[b"text/html"]


def _quality(text: bytes) -> float:
    """Returns the value of the header's parameter q; 0, which means unwanted, if malformed."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _page(shown: Mapping[str, Any]) -> str:
    links = shown["links"]
    state = "ready" if shown["ready"] else "stopping"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>spacetime: {len(shown["models"])} models, {state}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>spacetime</h1>
<p>Version {escape(shown["version"])}. The server is <strong>{state}</strong>. Policy
{escape(shown["policy"])} on device {escape(shown["device"])}. gRPC is at
<code>{escape(links["grpc"])}</code>.</p>
<nav>{"".join(_link(links[to], text) for to, text in _LINKS)}</nav>
<h2>Models</h2>
{_table(_MODEL_COLUMNS, map(_model_row, shown["models"]))}
<h2>Lanes</h2>
{_table(_LANE_COLUMNS, map(_lane_row, shown["lanes"]))}
</body>
</html>
"""


_LINKS = (
    ("server", "Server"),
    ("statistics", "Statistics"),
    ("description", "Description of all paths (OpenAPI)"),
    ("metrics", "Metrics"),
)
# Columns that begin with # hold numbers.
_MODEL_COLUMNS = (
    *("Model", "State", "Inputs", "Outputs"),
    *("#Answered", "#Waiting", "#In time", "#p99"),
)
_LANE_COLUMNS = (
    "Lane",
    "Kind",
    "#Units",
    "#Launches",
    "#Samples a launch",
    "#Tenants a launch",
    "#Busy",
)


def _model_row(model: Mapping[str, Any]) -> Sequence[str]:
    name = str(model["name"])
    state = model["reason"] or model["state"].lower()
    if "inputs" not in model:
        return [escape(name), escape(state), *("–",) * 6]
    in_time = model["in_time"]
    return [
        _link(f"/v2/models/{quote(name, safe='')}", name),
        escape(state),
        _tensors(model["inputs"]),
        _tensors(model["outputs"]),
        f"{model['answered']:,}",
        f"{model['waiting']:,}",
        "–" if in_time is None else f"{in_time:.2%}",
        _rounded(model["p99_ms"], " ms"),
    ]


def _lane_row(lane: Mapping[str, Any]) -> Sequence[str]:
    return [
        str(lane["lane"]),
        escape(lane["kind"]),
        str(lane["units"]),
        f"{lane['launches']:,}",
        _rounded(lane["samples_per_launch"]),
        _rounded(lane["tenants_per_launch"]),
        _rounded(lane["busy_s"], " s"),
    ]


def _rounded(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:,.2f}{unit}"


def _tensors(described: Iterable[Mapping[str, Any]]) -> str:
    return "<br>".join(
        f"{escape(spec['name'])} <code>{spec['datatype']} {spec['shape']}</code>"
        for spec in described
    )


def _link(to: str, text: str) -> str:
    return f'<a href="{escape(to)}">{escape(text)}</a>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    names = [(name.lstrip("#"), ' class="number"' * name.startswith("#")) for name in columns]
    head = "".join(f'<th scope="col"{number}>{name}</th>' for name, number in names)
    body = "\n".join(
        "<tr>" + "".join(
            f'<td data-of="{name}"{number}><span>{cell}</span></td>'
            for (name, number), cell in zip(names, row, strict=True)
        ) + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
