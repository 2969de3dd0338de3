"""Where measurements published by others lie, for tests; none of them is part of the project."""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path

import pytest

from spacetime import profile_import
from spacetime.profile import Profiles
from spacetime.workload import Tenant, Workload

ROOT = Path(__file__).parent.parent


def data(name: str) -> Path:
    """A file or folder of the published data; skips the test, saying so, where it is absent."""
    folder = Path(os.environ.get("SPACETIME_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is absent; set SPACETIME_DATA to the published data")
    return folder / name


@cache
def _parvagpu(folder: Path) -> Profiles:
    return profile_import.parvagpu(folder)


def parvagpu() -> Profiles:
    """The A100 profiles of the ParvaGPU artifact."""
    return _parvagpu(data("parvagpu"))


def scenario(name: str) -> Workload:
    """S1 to S4 of the ParvaGPU artifact as a workload; a tenant is named as its model."""
    with data("parvagpu/scenarios.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scenario"] == name]
    return Workload(tenants=tuple(
        Tenant(
            name=row["model"], model=row["model"],
            slo_ms=float(row["slo_ms"]), rate_rps=float(row["rate_rps"]),
        )
        for row in rows
    ))  # fmt: skip
