"""Reading scenarios, the workloads planners are compared on: a folder, a workload file, or CSV.

A folder holds a workload file (`*.yaml`, `*.yml`, `*.json`) for each scenario, named after it. A
CSV has a tenant in each row, `scenario,model,slo_ms,rate_rps`, and Poisson arrivals. Every refusal
names file, row and field.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from spacetime import workload_file
from spacetime.workload import Tenant, Workload, WorkloadError

HEADER = ["scenario", "model", "slo_ms", "rate_rps"]
SUFFIXES = (".yaml", ".yml", ".json")


def read(path: Path) -> dict[str, Workload]:
    """Every scenario by name, in order of their file's rows or of the files' names.

    Raises WorkloadError, one line `file:row: field: what it must be`.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise WorkloadError(str(path), f"holds no workload ({', '.join(SUFFIXES)})")
        names = Counter(file.stem for file in files)
        return {
            file.stem if names[file.stem] == 1 else file.name: workload_file.read(file)
            for file in files
        }
    if path.suffix == ".csv":
        return _read_csv(path)
    return {path.stem: workload_file.read(path)}


def _read_csv(path: Path) -> dict[str, Workload]:
    tenants: dict[str, list[Tenant]] = defaultdict(list)
    for row, values in _rows(path):
        scenario = tenants[values["scenario"]]
        twins = sum(tenant.model == values["model"] for tenant in scenario)
        name = values["model"] if twins == 0 else f"{values['model']}-{twins + 1}"
        try:
            slo_ms, rate_rps = (_number(field, values[field]) for field in HEADER[2:])
            scenario.append(
                Tenant(name=name, model=values["model"], slo_ms=slo_ms, rate_rps=rate_rps)
            )
        except WorkloadError as error:
            raise WorkloadError(error.field, error.problem, where=f"{path}:{row}: ") from error
    if not tenants:
        raise WorkloadError("scenarios", "holds no row", where=f"{path}:1: ")
    return {name: Workload(tenants=tuple(each)) for name, each in tenants.items()}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = csv.reader(workload_file.read_text(path).splitlines(), strict=True)
    row = 1
    try:
        if next(lines, []) != HEADER:
            raise WorkloadError("header", f"must be {','.join(HEADER)}", where=f"{path}:1: ")
        for row, values in enumerate(lines, start=2):
            if len(values) != len(HEADER):
                raise WorkloadError(
                    "row", f"must have {len(HEADER)} fields, has {len(values)}; is it cut short?",
                    where=f"{path}:{row}: ",
                )  # fmt: skip
            if "" in values:
                field = HEADER[values.index("")]
                raise WorkloadError(field, "must not be empty", where=f"{path}:{row}: ")
            yield row, dict(zip(HEADER, values, strict=True))
    except csv.Error as error:
        raise WorkloadError("row", f"is not CSV: {error}", where=f"{path}:{row + 1}: ") from error


def _number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise WorkloadError(field, f"must be a number, got {text!r:.40}") from None
