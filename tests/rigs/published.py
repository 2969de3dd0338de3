"""Where measurements published by others lie, for tests.

The profiles and scenarios of ParvaGPU are part of the project (`examples/a100`); what was digitised
from figures of papers is not, and its tests skip where it is absent.
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path

import pytest

from spacetime.profiles import profile_import
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload import Workload

ROOT = Path(__file__).parents[2]
A100 = ROOT / "examples" / "a100"


def data(name: str) -> Path:
    """A file of the digitised figures; skips the test, saying so, where it is absent."""
    folder = Path(os.environ.get("SPACETIME_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is absent; set SPACETIME_DATA to the published data")
    return folder / name


@cache
def parvagpu() -> Profiles:
    """The A100 profiles of the ParvaGPU artifact."""
    return read_profiles(A100 / "profiles.csv")


def scenario(name: str) -> Workload:
    """S1 to S4 of the ParvaGPU artifact as a workload; a tenant is named as its model."""
    return read_scenarios(A100 / "scenarios.csv")[name]


def artifact(folder: Path) -> Path:
    """The profiles in a folder as the artifact has them: a file a model, in its own units."""
    folder.mkdir()
    for model in parvagpu().models:
        with (folder / f"{model}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(profile_import.PARVAGPU_HEADER)
            for point in parvagpu().of(model):
                rate = round(point.throughput_rps / point.procs, 6)
                seconds = round(point.latency_ms / 1000, 6)
                rows.writerow([point.units, point.batch, point.procs, rate, seconds])
    return folder
