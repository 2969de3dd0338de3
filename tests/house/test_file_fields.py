"""docs/workload.md beside the readers: every field of the files, its default, type and example."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from spacetime.errors import SpacetimeError
from spacetime.plan import plan_json
from spacetime.plan.plan import Assignment, GpuPlan, PartitionPlan, Plan, Reason
from spacetime.profiles import profile_file
from spacetime.profiles.profile import Point
from spacetime.workload import workload_file
from spacetime.workload.workload import Arrivals, InputSpec, Tenant, Workload

PAGE = (Path(__file__).parents[2] / "docs" / "workload.md").read_text()
KINDS: dict[str, type] = {
    "Workload file": Workload, "Tenant": Tenant, "Input": InputSpec, "Arrivals": Arrivals,
    "Profile file": Point,
    "Plan file": Plan, "Device of a plan": GpuPlan, "Partition": PartitionPlan,
    "Assignment": Assignment, "Reason": Reason,
}  # fmt: skip
BESIDE = {"Workload file": {"trace"}}  # made by the reader, no field of the file
ADDED = {"Plan file": {"format"}}
SAID_OTHERWISE = {("Workload file", "arrivals"), ("Profile file", "source")}
EMPTY = {"[]": (), "none": None}
WRONG: dict[str, Any] = {"text": 5, "number": "x", "whole number": 1.5, "true or false": "x"}
TENANT = {"name": "a", "model": "m", "slo_ms": 50, "rate_rps": 1}
PLACE = {"tenant": "a", "batch": 1, "rate_rps": 1, "latency_ms": 1}
POINT = {
    "model": "m", "device": "d", "kind": "mig", "units": 1, "batch": 8, "procs": 1,
    "latency_ms": 20, "throughput_rps": 400, "source": "measured",
}  # fmt: skip


class Row(NamedTuple):
    table: str
    field: str
    type: str
    default: str
    example: str


def rows() -> Iterator[Row]:
    """Every row of a table of fields, with the heading it stands under."""
    for section in re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)[1:]:
        for line in section.splitlines():
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if line.startswith("| `") and len(cells) == 5:
                yield Row(section.partition("\n")[0], cells[0], cells[1], cells[3], cells[4])


ROWS = list(rows())
SHOWN = [row for row in ROWS if row.example != "see below"]


def read(table: str, fields: dict[str, Any], folder: Path) -> None:
    """Reads the smallest file whose part `table` has these fields beside the required ones."""
    if KINDS[table] is Point:
        path = folder / "profiles.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(POINT | fields))
            writer.writeheader()
            writer.writerow(POINT | fields)
        profile_file.read(path)
    elif list(KINDS).index(table) > list(KINDS).index("Profile file"):
        plan_json.loads(json.dumps(plan(table, fields)))
    else:
        path = folder / "work.yaml"
        path.write_text(yaml.safe_dump(workload(table, fields)))
        workload_file.read(path)


def workload(table: str, fields: dict[str, Any]) -> dict[str, Any]:
    spec = {"shape": [1], "datatype": "FP32"} | (fields if table == "Input" else {})
    tenant = TENANT | {"example_inputs": [spec]} | (fields if table == "Tenant" else {})
    arrivals = dict(fields) if table == "Arrivals" else {}
    if "form" in fields or {"time_scale", "rate_scale", "rates"} & set(fields):
        arrivals = {"form": "azure-functions-2021"} | arrivals
    if "file" in arrivals or "form" in arrivals:
        arrivals |= {"process": "trace", "file": arrivals.get("file", "calls.csv")}
    top = {"tenants": [tenant], "arrivals": arrivals}
    return top | (fields if table == "Workload file" else {})


def plan(table: str, fields: dict[str, Any]) -> dict[str, Any]:
    def part(name: str, smallest: dict[str, Any]) -> dict[str, Any]:
        return smallest | (fields if table == name else {})

    tenants = [part("Assignment", PLACE)]
    partition = part("Partition", {"id": "p", "kind": "mig", "units": 1, "tenants": tenants})
    gpu = part("Device of a plan", {"id": 0, "partitions": [partition]})
    why = part("Reason", {"tenant": "a", "text": "b"})
    top = {"format": "spacetime.plan/1", "planner": "p", "device": "d", "gpus": [gpu]}
    return part("Plan file", top | {"reasons": [why]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files lie that the examples name."""
    (tmp_path / "trace.csv").write_text("time_ms,tenant\n1,a\n")
    calls = "".join(f"a,f,{second}.5,0.5\n" for second in range(100))
    (tmp_path / "calls.csv").write_text("app,func,end_timestamp,duration\n" + calls)
    return tmp_path


@pytest.mark.parametrize("table", KINDS)
def test_the_table_names_the_fields_there_are(table: str) -> None:
    told = {row.field for row in ROWS if row.table == table}
    there = {field.name for field in dataclasses.fields(KINDS[table])}
    assert told == there - BESIDE.get(table, set()) | ADDED.get(table, set())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.table}.{row.field}")
def test_the_default_is_the_readers(row: Row) -> None:
    if (row.table, row.field) in SAID_OTHERWISE or row.field == "format":
        return
    fields = {field.name: field for field in dataclasses.fields(KINDS[row.table])}
    default = fields[row.field].default
    if row.default == "required":
        assert default is dataclasses.MISSING
    elif row.default in EMPTY:
        assert default == EMPTY[row.default]
    else:
        assert default == yaml.safe_load(row.default)


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: f"{row.table}.{row.field}")
def test_the_example_is_read(row: Row, folder: Path) -> None:
    value = yaml.safe_load(row.example)
    if row.field == "tenants" and row.table == "Profile file":
        assert 1 < value <= POINT["batch"]  # type: ignore[operator]
    read(row.table, {row.field: value}, folder)


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: f"{row.table}.{row.field}")
def test_another_type_is_refused_by_name(row: Row, folder: Path) -> None:
    if KINDS[row.table] is Point and row.type == "text" and row.field not in {"kind", "source"}:
        return  # each cell of a CSV is a text
    wrong = WRONG.get(row.type, 5)
    with pytest.raises(SpacetimeError, match=row.field):
        read(row.table, {row.field: wrong}, folder)


def test_what_is_required_is_missed(folder: Path) -> None:
    for row in ROWS:
        if row.default == "required" and row.table == "Plan file":
            whole = plan(row.table, {})
            del whole[row.field]
            with pytest.raises(SpacetimeError, match=row.field):
                plan_json.loads(json.dumps(whole))


def test_the_files_shown_are_read(folder: Path) -> None:
    for kind, block in re.findall(r"```(yaml|json|)\n(.*?)```", PAGE, re.DOTALL):
        if kind == "json":
            plan_json.loads(block)
        else:
            path = folder / ("work.yaml" if kind else "profiles.csv")
            path.write_text(block)
            (workload_file if kind else profile_file).read(path)
