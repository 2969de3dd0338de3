"""Reading workload files: YAML or JSON, and CSV traces. Every refusal names file, line and field.

    tenants: [{name, model, slo_ms, rate_rps, priority?, weight?, batch_sizes?,
               example_inputs?: [{shape, datatype, name?, range?, file?}], weights?, batch_mix?,
               batchable?}]
    arrivals: {process: poisson|constant|gamma|trace, cv?, file?, form?}
    seed: 0

`batch_mix` says that requests are batches: `{inputs: weight, ...}`, such as `{1: 3, 8: 1}`, or
`{lognormal: {largest: 32, variance: 0.9}}`; `rate_rps` counts inputs in any case. `batchable` is
whether requests may share a launch, where the owner knows better than the proof.

A trace is CSV with the columns `time_ms,tenant`, or another `form` of `recorded`,
then with `time_scale`, `rate_scale` and `rates: recorded|tenants`; its path is relative to the
workload file. Unknown and repeated fields are refused: a misspelt option must not be ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from spacetime.table_file import Table
from spacetime.workload import recorded
from spacetime.workload.fields import converted
from spacetime.workload.workload import (
    MAX_MS,
    Arrival,
    Arrivals,
    Tenant,
    Workload,
    WorkloadError,
    log_normal,
    shown,
)

TRACE_HEADER = ["time_ms", "tenant"]
LOG_NORMAL = {"largest", "variance"}
MOST_NODES = 1_000_000
FieldLines = dict[str, int]
MIXED = re.compile(r"(\.batch_mix)\[.*")


def read_workload(path: str | Path) -> Workload:
    """Read and check a workload; a name ending in `.json` is JSON, any other is YAML.

    Raises WorkloadError, one line `file:line: field: what it must be`.
    """
    path = Path(path)
    text = read_text(path)
    lines: FieldLines = {}
    try:
        _find_fields(path, text, lines)
        return _workload(_parse(path, text), path.parent)
    except WorkloadError as error:
        line = _line_of(error.field, lines)
        field, problem = (f"{_one_line(text):.400}" for text in (error.field, error.problem))
        raise WorkloadError(field, problem, where=f"{path}:{line}: ") from error


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML's safe loader, which also takes `1e3` for a number as JSON and YAML 1.2 do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_text(path: Path) -> str:
    """A file's text. Raises WorkloadError where it cannot be read or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    except OSError as error:
        raise WorkloadError(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WorkloadError(str(path), "must be UTF-8 text") from error


def _parse(path: Path, text: str) -> object:
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    # A value that is none of its tag's (`!!int x`) fails in PyYAML in any of these ways.
    except (
        ValueError,
        RecursionError,
        yaml.YAMLError,
        LookupError,
        AttributeError,
        TypeError,
        OverflowError,
    ) as error:
        raise WorkloadError("workload", f"cannot be read: {_one_line(error):.200}") from error


def _find_fields(path: Path, text: str, lines: FieldLines) -> None:
    """Fill in every field's line, by its path such as `tenants[1].slo_ms`. JSON is read as YAML."""
    try:
        json_safe = text.replace("\t", " ") if path.suffix == ".json" else text
        root = yaml.compose(json_safe, Loader=_Loader)
        _walk(root, "", lines, set())
        _refuse_bombs(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WorkloadError(
            "workload", f"is not YAML or JSON: {error.problem}, line {line}"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise WorkloadError("workload", f"is not YAML or JSON: {error}") from error


def _walk(node: yaml.Node | None, place: str, lines: FieldLines, seen: set[int]) -> None:
    if node is None or id(node) in seen:  # an alias: its lines are known, and it may be circular
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[f"{place}[{number}]"] = item.start_mark.line + 1
            _walk(item, f"{place}[{number}]", lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise WorkloadError(place or "workload", "must have texts for its fields")
            field = f"{place}.{key.value}".lstrip(".")
            first, lines[field] = lines.get(field), key.start_mark.line + 1
            if first is not None:
                raise WorkloadError(field, f"is given twice, first in line {first}")
            _walk(value, field, lines, seen)


def _refuse_bombs(root: yaml.Node | None) -> None:
    """Refuse aliases of aliases that would expand a small file to more than memory holds."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if isinstance(node, tuple):
            return size(node[0]) + size(node[1])
        if id(node) not in sizes:
            sizes[id(node)] = 1  # what a circular alias counts
            nested = node.value if isinstance(node, yaml.CollectionNode) else ()
            sizes[id(node)] += sum(map(size, nested))
        return sizes[id(node)]

    expanded = 0 if root is None else size(root)
    if expanded > max(MOST_NODES, 2 * len(sizes)):
        raise WorkloadError("workload", f"its aliases stand for {expanded:.1e} values; write fewer")


def _line_of(field: str, lines: FieldLines) -> int:
    """The line of a field, or of the nearest thing around it that the file does hold."""
    while field and field not in lines:
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return lines.get(field, 1)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a workload file holds."""

    tenants: tuple[Tenant, ...]
    arrivals: Arrivals = field(default_factory=Arrivals)
    seed: int = 0


def _workload(data: object, folder: Path) -> Workload:
    try:
        said = converted(_with_mixes(data), _Contents, WorkloadError, whole="workload")
    except WorkloadError as error:  # a mix is a mapping in the file, and pairs here
        raise WorkloadError(MIXED.sub(r"\1", error.field), error.problem) from error
    untraced = Workload(tenants=said.tenants, seed=said.seed)
    if said.arrivals.file is None:
        return replace(untraced, arrivals=said.arrivals)
    path = folder / said.arrivals.file
    if said.arrivals.form == "csv":
        trace = read_trace(path, said.tenants)
    else:
        trace = _recorded(path, said.arrivals, untraced)
    return replace(untraced, arrivals=said.arrivals, trace=trace)


def _recorded(path: Path, arrivals: Arrivals, workload: Workload) -> tuple[Arrival, ...]:
    try:
        recording = recorded.read(path, arrivals.form)
        return recorded.draw(recording, workload.tenants, arrivals, seed=workload.seed)
    except WorkloadError as error:
        raise WorkloadError("arrivals.file", str(error)) from error


def _with_mixes(data: Any) -> Any:
    """The same file, every `batch_mix` as a list of its pairs."""
    tenants = data.get("tenants") if isinstance(data, dict) else None
    if not isinstance(tenants, list):
        return data
    mixed = [
        tenant | {"batch_mix": _mix(tenant["batch_mix"], f"tenants[{number}].batch_mix")}
        if isinstance(tenant, dict) and "batch_mix" in tenant
        else tenant
        for number, tenant in enumerate(tenants)
    ]
    return data | {"tenants": mixed}


def _mix(mix: Any, place: str) -> list[list[Any]]:
    if not isinstance(mix, dict) or not mix:
        raise WorkloadError(place, f"must map inputs to weights, got {shown(mix)}")
    if "lognormal" not in mix:
        # JSON has no keys but texts.
        return [[int(k) if str(k).isdecimal() else k, weight] for k, weight in mix.items()]
    shape = mix["lognormal"]
    if set(mix) != {"lognormal"} or not isinstance(shape, dict) or set(shape) != LOG_NORMAL:
        raise WorkloadError(place, "lognormal must be alone, and have largest and variance")
    try:
        return [list(pair) for pair in log_normal(**shape)]
    except WorkloadError as error:
        raise WorkloadError(f"{place}.lognormal.{error.field}", error.problem) from error


def read_trace(path: Path, tenants: tuple[Tenant, ...]) -> tuple[Arrival, ...]:
    """Read recorded arrivals, CSV `time_ms,tenant` in any order, `tenant` a tenant's name."""
    numbers = {tenant.name: number for number, tenant in enumerate(tenants)}
    table = Table(path, WorkloadError)
    try:
        trace = [_arrival(table, *row, numbers) for row in table.rows(TRACE_HEADER)]
    except WorkloadError as error:
        raise WorkloadError("arrivals.file", str(error)) from error
    if not trace:
        raise WorkloadError("arrivals.file", f"{path}: holds no arrival")
    return tuple(sorted(trace, key=lambda arrival: arrival.time_ns))


def _arrival(table: Table, line: int, row: dict[str, str], numbers: dict[str, int]) -> Arrival:
    name, text = row["tenant"], row["time_ms"]
    if name not in numbers:
        table.refuse(line, "tenant", f"{name!r:.40} is not a tenant of the workload")
    time = table.number(line, "time_ms", text)
    if not 0 <= time <= MAX_MS:
        table.refuse(line, "time_ms", f"must be from 0 to {MAX_MS:g}, got {text:.40}")
    return Arrival(round(time * 1e6), numbers[name])
