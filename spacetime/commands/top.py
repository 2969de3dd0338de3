"""`spacetime top`: a server's metrics as a table that keeps itself up to date.

Reads the metrics port, so it watches a remote server as well, and any number may watch. A server
that goes away is asked again; one that comes back has begun to count anew.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import termios
import time
import tty
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live

from spacetime.commands.top_screen import tables
from spacetime.errors import InvalidInput
from spacetime.interruption import Interruption

TIMEOUT_S = 10.0
PORT = 8002  # where a server's metrics are unless told otherwise
MOST_BYTES = 64 * 2**20
OUTCOMES = ("move", "stay", "refused")
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: values by name and by what they are of, and when it was taken."""

    time_s: float
    models: Mapping[str, Values]
    lanes: Mapping[str, Values]
    server: Values  # of no model and no lane; re-plans by "NAME OUTCOME"
    facts: Mapping[str, str]
    routes: Mapping[str, Values]  # by model and lane: its part there, 0 where that is open
    kinds: Mapping[str, str]  # of each lane's units


@dataclass(frozen=True, kw_only=True)
class TopCommand:
    """The options of `spacetime top`. `interval` is in seconds."""

    url: str
    token_file: Path | None
    interval: float
    once: bool
    as_json: bool


def run(asked: TopCommand) -> None:
    """Shows the server until `q` or an interruption; once, if asked or where no terminal shows it.

    Raises InvalidInput for an address nobody answers, and KeyboardInterrupt or SystemExit when
    interrupted or terminated.
    """
    token = None if asked.token_file is None else _token(asked.token_file)
    first = read(asked.url, token)
    console = Console()
    if asked.as_json:
        print(json.dumps(summary(first, None), indent=2))
    elif asked.once or not console.is_terminal:
        console.print(tables(summary(first, None), console.width))
    else:
        with Interruption() as stop:
            try:
                with stop.window():
                    _watch(first, lambda: read(asked.url, token), asked.interval, console)
            except KeyboardInterrupt:
                if stop.number == signal.SIGTERM:
                    raise SystemExit(128 + signal.SIGTERM) from None
                raise


def _watch(first: Reading, again: Callable[[], Reading], interval: float, console: Console) -> None:
    with keys() as pressed, Live(console=console, auto_refresh=False, screen=True) as live:
        last, now, trouble = None, first, ""
        while True:
            shown = tables(summary(now, last), console.width, console.height, trouble)
            live.update(shown, refresh=True)
            if pressed(interval) in {"q", "Q"}:
                return
            try:
                last, now, trouble = now, again(), ""
            except InvalidInput as error:
                ago = time.monotonic() - now.time_s
                trouble = f"no answer for {ago:.0f} s, asked every {interval:g} s: {error.got}"


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Yields what waits so many seconds for a key; keys are told at once and are not shown.

    Where the input is no terminal nothing is ever pressed.
    """
    fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = None if fd is None else termios.tcgetattr(fd)
    heard = [] if fd is None else [fd]

    def pressed(seconds: float) -> str:
        if not select.select(heard, (), (), seconds)[0]:
            return ""
        key = os.read(heard[0], 1).decode("ascii", "replace")
        if not key:  # the terminal has gone: asking again would never wait
            heard.clear()
        return key

    try:
        if fd is not None:
            tty.setcbreak(fd, termios.TCSANOW)
        yield pressed
    finally:
        if fd is not None and before is not None:
            termios.tcsetattr(fd, termios.TCSANOW, before)


def address(url: str) -> str:
    """The address of metrics: HOST, HOST:PORT, PORT, or http(s)://HOST:PORT with or without a path.

    Raises ValueError for what is none.
    """
    if url.isascii() and url.isdigit():
        url = f"127.0.0.1:{url}"
    bare = "://" not in url
    whole = f"http://{url}" if bare else url
    parts = urlsplit(whole)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an address is such as localhost:8002 or http://HOST:PORT/metrics")
    if bare and parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{PORT}")
    return parts._replace(path=parts.path.rstrip("/") or "/metrics").geturl()


def read(url: str, token: str | None = None) -> Reading:
    """The metrics at an address; see address(). Raises InvalidInput, which says what is there."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        url = address(url)
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            text = answer.read(MOST_BYTES).decode()
    except HTTPError as error:
        why = "asks for a token: give --token-file" if error.code in {401, 403} else (
            f"answers {error.code}: is it the port of the metrics?"
        )  # fmt: skip
        raise _no_metrics(f"{url}, which {why}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        told = getattr(reason, "strerror", None) or reason
        raise _no_metrics(f"{url}: no server there ({told})") from None
    except (ValueError, OverflowError, HTTPException) as error:
        raise _no_metrics(f"{url}: {error}") from None
    try:
        return parse(text, time.monotonic())
    except Exception:  # the parser raises what it likes for a text that is something else
        raise _no_metrics(f"{url}, where something else than metrics of spacetime is") from None


def _no_metrics(got: str) -> InvalidInput:
    return InvalidInput("-", "url", "a server's metrics", " ".join(got.split()))


def parse(text: str, time_s: float) -> Reading:
    """A reading of the text that a metrics port gives. Raises ValueError for another text."""
    models: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    lanes: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    server: dict[str, float] = defaultdict(float)
    facts: dict[str, str] = {}
    routes: dict[str, dict[str, float]] = defaultdict(dict)
    kinds: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for named, labels, value, *_ in family.samples:
            # The parser gives every counter a `_total`; Triton's have none.
            name = named.removesuffix("_total") if named.startswith("nv_") else named
            if name == "spacetime_info":
                facts = dict(labels)
            elif "model" in labels and "lane" in labels:
                if name == "spacetime_route_share":
                    routes[labels["model"]][labels["lane"]] = value
            elif "model" in labels:
                models[labels["model"]][name] += value
            elif "lane" in labels:
                kinds[labels["lane"]] = labels.get("kind", "")
                lanes[labels["lane"]][name] += value
            else:
                server[" ".join([name, labels.get("outcome", "")]).strip()] += value
    if not facts:
        raise ValueError("these are no metrics of spacetime")
    return Reading(time_s, models, lanes, server, facts, routes, kinds)


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
                "lanes": now.routes.get(name, {}),
            }
            for name, values in now.models.items()
        },
        "lanes": {
            name: _lane(_since(values, None if last is None else last.lanes.get(name)), seconds)
            | {"units": values["spacetime_units"], "kind": now.kinds.get(name, "")}
            for name, values in now.lanes.items()
        },
        "ready": bool(now.server["spacetime_ready"]),
        "controller": _controller(now.server),
    }


def _controller(values: Values) -> dict[str, Any] | None:
    """What a controller has done since the start; None where there is none."""
    if "spacetime_controller_running" not in values:
        return None
    return {
        "running": bool(values["spacetime_controller_running"]),
        "planned_units": values["spacetime_planned_units"],
        "last_replan": values.get("spacetime_last_replan_timestamp_seconds"),
        **{outcome: values[f"spacetime_replans_total {outcome}"] for outcome in OUTCOMES},
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
