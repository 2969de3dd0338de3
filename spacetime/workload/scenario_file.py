"""Reading scenarios, the workloads planners are compared on: a folder, a workload file, or CSV.

A folder holds a workload file (`*.yaml`, `*.yml`, `*.json`) for each scenario, named after it. A
CSV has a tenant in each row, `scenario,model,slo_ms,rate_rps`, and Poisson arrivals. Every refusal
names file, line and field.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from spacetime.table_file import Table
from spacetime.workload.workload import Tenant, Workload, WorkloadError
from spacetime.workload.workload_file import read_workload

HEADER = ["scenario", "model", "slo_ms", "rate_rps"]
SUFFIXES = (".yaml", ".yml", ".json")


def read_scenarios(path: Path) -> dict[str, Workload]:
    """Every scenario by name, in order of their file's rows or of the files' names.

    Raises WorkloadError, one line `file:row: field: what it must be`.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise WorkloadError(str(path), f"holds no workload ({', '.join(SUFFIXES)})")
        names = Counter(file.stem for file in files)
        return {
            file.stem if names[file.stem] == 1 else file.name: read_workload(file) for file in files
        }
    if ".csv" in path.suffixes:
        return _read_csv(path)
    return {path.stem: read_workload(path)}


def _read_csv(path: Path) -> dict[str, Workload]:
    tenants: dict[str, list[Tenant]] = defaultdict(list)
    table = Table(path, WorkloadError)
    for row, values in table.rows(HEADER):
        name, model, slo, rate = (_text(table, row, values, field) for field in HEADER)
        scenario = tenants[name]
        twins = sum(tenant.model == model for tenant in scenario)
        slo_ms = table.number(row, "slo_ms", slo)
        rate_rps = table.number(row, "rate_rps", rate)
        try:
            own = model if twins == 0 else f"{model}-{twins + 1}"
            scenario.append(Tenant(name=own, model=model, slo_ms=slo_ms, rate_rps=rate_rps))
        except WorkloadError as error:
            raise WorkloadError(error.field, error.problem, where=f"{path}:{row}: ") from error
    if not tenants:
        raise WorkloadError("scenarios", "holds no row", where=f"{path}:1: ")
    return {name: Workload(tenants=tuple(each)) for name, each in tenants.items()}


def _text(table: Table, row: int, values: dict[str, str], field: str) -> str:
    return values[field] or table.refuse(row, field, "must not be empty")
