"""Arrivals that others recorded, in their public formats, drawn onto the tenants of a workload.

azure-functions-2019  HashOwner,HashApp,HashFunction,Trigger,1,…,1440: invocations of a function in
                      each minute of a day (ATC'20)
azure-functions-2021  app,func,end_timestamp,duration: one invocation a row, in seconds (SOSP'21)
azure-llm             TIMESTAMP,ContextTokens,GeneratedTokens: one request a row (ISCA'24, HPCA'25)
twitter               no header, one number a line: requests in that second, the form in which
                      inference systems pass the Twitter stream on; it may be normalised

Columns may come in any order and others beside them; rows need not be in order of time, a file may
be compressed (`.gz`), and a day of minutes may end early. Counts are spread over their minute or
second at random (seeded). Nothing of these recordings is part of this project. Every refusal is one
line with file, line and field.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from spacetime.table_file import Table, opened
from spacetime.units import MS, SECOND
from spacetime.workload.workload import MAX_MS, Arrival, Arrivals, Tenant, WorkloadError

MINUTE = 60 * SECOND
MINUTES = 1440
MOST = 20_000_000  # arrivals, or rows: more is a wrong unit or a file to be cut
LARGEST = 1e9  # of any count or number of seconds in a recording
ROUNDED_S = 0.001  # what rounding may have made a duration longer
FUNCTIONS_2019 = ["HashOwner", "HashApp", "HashFunction"]
FUNCTIONS_2021 = ["app", "func", "end_timestamp", "duration"]
INSTANT = re.compile(r"(\d+-\d+-\d+[ T]\d+:\d+:\d+)(?:\.(\d+))?(?:\+00:00|Z)?", re.ASCII)
LLM = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]


class Span(NamedTuple):
    """`requests` that came from `start_ns` on, within `width_ns`."""

    start_ns: int
    width_ns: int
    requests: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """Streams of requests by name, in order of time, over `length_ns` from 0.

    `exact`: each span is one request at its start, and its width the time to the next one.
    """

    streams: Mapping[str, Sequence[Span]]
    length_ns: int
    exact: bool


def read(path: Path, form: str) -> Recorded:
    """A recording in one of `FORMS`; it starts at its first minute, second or request.

    Raises WorkloadError, one line `file:row: field: what it must be`.
    """
    try:
        recording = FORMS[form](path)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise WorkloadError(str(path), f"cannot be read: {why}") from error
    except UnicodeDecodeError as error:
        raise WorkloadError(str(path), "must be UTF-8 text") from error
    if not any(span.requests for spans in recording.streams.values() for span in spans):
        raise WorkloadError("recording", "holds no request", where=f"{path}: ")
    return recording


def draw(
    recording: Recorded, tenants: Sequence[Tenant], how: Arrivals, *, seed: int
) -> tuple[Arrival, ...]:
    """The recording as the tenants' arrivals, its time and rate scaled as `how` says.

    One stream is dealt out among the tenants in proportion to their rates. Of several the busiest
    goes to the tenant of the highest rate, and so on; streams beyond the tenants are left out.
    Raises WorkloadError for fewer streams than tenants, and for more arrivals than `MOST`.
    """
    chance = random.Random(f"spacetime/recorded/{seed}")
    totals = {
        name: math.fsum(span.requests for span in spans)
        for name, spans in recording.streams.items()
    }
    names = sorted(totals, key=lambda name: (-totals[name], name))
    order = sorted(range(len(tenants)), key=lambda n: (-tenants[n].rate_rps, n))
    if len(names) == 1:
        wanted = sum(tenant.rate_rps for tenant in tenants)
        plan = [(names[0], wanted, order)]
    elif len(names) < len(tenants):
        raise WorkloadError(
            "tenants", f"are {len(tenants)}, the recording has {len(names)} streams; name fewer"
        )
    else:
        plan = [(name, tenants[n].rate_rps, [n]) for name, n in zip(names, order, strict=False)]
    scales = [_scale(recording, totals[name], wanted, how) for name, wanted, _ in plan]
    expected = sum(totals[name] * by for (name, _, _), by in zip(plan, scales, strict=True))
    if recording.length_ns / how.time_scale > MAX_MS * MS:
        raise WorkloadError("time_scale", f"stretches it beyond {MAX_MS:g} ms")
    if expected > MOST:
        raise WorkloadError("rate_scale", f"gives {expected:.3g} arrivals, the most is {MOST:,}")
    arrivals: list[Arrival] = []
    for (name, _, to), scale in zip(plan, scales, strict=True):
        times = _times(recording.streams[name], scale, recording.exact, chance)
        weights = [tenants[n].rate_rps for n in to]
        arrivals += [
            Arrival(round(time_ns / how.time_scale), chance.choices(to, weights)[0])
            for time_ns in times
        ]
    if not arrivals:
        raise WorkloadError("rate_scale", f"leaves no arrival of {expected:.3g} expected")
    return tuple(sorted(arrivals))


def _scale(recording: Recorded, total: float, wanted_rps: float, how: Arrivals) -> float:
    """What a stream's counts are multiplied by."""
    if how.rates == "recorded" or not total:
        return how.rate_scale
    recorded_rps = total * how.time_scale / max(recording.length_ns, 1) * SECOND
    return wanted_rps / recorded_rps * how.rate_scale


def _times(
    spans: Sequence[Span], scale: float, exact: bool, chance: random.Random
) -> Iterator[int]:
    for start_ns, width_ns, count in spans:
        wanted = count * scale
        copies = int(wanted) + (chance.random() < wanted % 1)
        if exact and copies:
            yield start_ns
            copies -= 1
        for _ in range(copies):
            yield start_ns + int(chance.random() * width_ns)


def _functions_2019(path: Path) -> Recorded:
    table = _table(path)
    streams: dict[str, list[Span]] = {}
    first: dict[tuple[str, ...], int] = {}
    last = 0
    for row, values in table.rows(FUNCTIONS_2019, more=_is_minute, short=True):
        if len(values) < len(FUNCTIONS_2019):
            table.refuse(row, "row", f"must have {','.join(FUNCTIONS_2019)}; is it cut short?")
        key = tuple(values.pop(name) for name in FUNCTIONS_2019)
        if (earlier := first.setdefault(key, row)) != row:
            table.refuse(row, "HashFunction", f"was given before, in row {earlier}")
        spans = []
        for name, text in values.items():
            last = max(last, int(name))
            count = _number(table, row, name, text or "0")  # a day may be cut short
            if count:
                spans.append(Span((int(name) - 1) * MINUTE, MINUTE, count))
        if spans:
            streams["/".join(key)] = sorted(spans)
    return Recorded(streams, last * MINUTE, exact=False)


def _is_minute(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 4 and 1 <= int(name) <= MINUTES


def _functions_2021(path: Path) -> Recorded:
    table = _table(path)
    times: dict[str, list[int]] = {}
    for row, values in table.rows(FUNCTIONS_2021):
        end = _number(table, row, "end_timestamp", values["end_timestamp"])
        lasted = _number(table, row, "duration", values["duration"])
        if lasted > end + ROUNDED_S:
            table.refuse(
                row,
                "duration",
                f"begins before 0: {values['duration']} of {values['end_timestamp']} s",
            )
        start_ns = max(round((end - lasted) * SECOND), 0)
        times.setdefault(f"{values['app']}/{values['func']}", []).append(start_ns)
    return _timed(times)


def _llm(path: Path) -> Recorded:
    table = _table(path)
    times = []
    for row, values in table.rows(LLM[:1], LLM[1:]):
        for field in values.keys() & set(LLM[1:]):
            _number(table, row, field, values[field])
        times.append(_instant(table, row, values["TIMESTAMP"]))
    return _timed({"requests": times} if times else {})


def _table(path: Path) -> Table:
    return Table(path, WorkloadError)


def _instant(table: Table, row: int, text: str) -> int:
    """`2023-11-16 18:17:03.9799600`, with any number of digits, and `+00:00` or nothing."""
    found = INSTANT.fullmatch(text)
    try:
        moment = datetime.fromisoformat(found[1]) if found else None
    except ValueError:
        moment = None
    if found is None or moment is None:
        table.refuse(row, "TIMESTAMP", f"must be a date and time, got {text!r:.40}")
    seconds = (moment - datetime(1970, 1, 1)).total_seconds()
    return int(seconds) * SECOND + int((found[2] or "")[:9].ljust(9, "0"))


def _timed(times: Mapping[str, list[int]]) -> Recorded:
    """Recordings of single requests need not be in order of time."""
    start = min(map(min, times.values()), default=0)
    end = max(map(max, times.values()), default=0)
    streams = {}
    for name, stream in times.items():
        stream.sort()
        streams[name] = [
            Span(time - start, after - time, 1) for time, after in pairwise([*stream, stream[-1]])
        ]
    return Recorded(streams, end - start, exact=True)


def _twitter(path: Path) -> Recorded:
    table, counts = _table(path), []
    blank = 0
    with opened(path) as lines:
        for row, line in enumerate(lines, start=1):
            _not_too_many(table, row)
            if not line.strip():
                blank = blank or row
                continue
            if blank:  # in the middle it would be a second that is missing
                table.refuse(blank, "requests", "must be a number, got a blank line")
            counts.append(_number(table, row, "requests", line.strip()))
    spans = [Span(n * SECOND, SECOND, count) for n, count in enumerate(counts)]
    return Recorded({"requests": spans}, len(spans) * SECOND, exact=False)


def _number(table: Table, row: int, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LARGEST:  # NaN is not either
        table.refuse(row, field, f"must be a number from 0 to {LARGEST:g}, got {text!r:.40}")
    _not_too_many(table, row)
    return value


def _not_too_many(table: Table, row: int) -> None:
    if row > MOST:
        table.refuse(row, "row", f"is one of more than {MOST:,}; cut the file")


FORMS: Mapping[str, Callable[[Path], Recorded]] = {
    "azure-functions-2019": _functions_2019,
    "azure-functions-2021": _functions_2021,
    "azure-llm": _llm,
    "twitter": _twitter,
}
