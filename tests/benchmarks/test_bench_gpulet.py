"""The studies of gpulet: their scenarios, their stand-ins, and that the benchmark runs at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from published import data

from spacetime.benchmarks import bench_gpulet
from spacetime.benchmarks.studies import gpulet
from spacetime.benchmarks.studies.gpulet import ATC, BATCHES, NAMES, PLANNERS, V1
from spacetime.errors import UnsupportedError


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACETIME_DATA", str(data(gpulet.FILE).parent))


def test_the_studies_have_the_papers_scenarios() -> None:
    assert len(V1.scenarios()) == 1023
    assert len(ATC.scenarios()) == 19682
    assert len(ATC.workload((100, 0, 200, 0, 0, 0, 0, 0, 0)).tenants) == 2


@pytest.mark.usefixtures("folder")
def test_stand_ins_are_called_predicted() -> None:
    found = gpulet.profiles(ATC)
    assert set(found.models) == set(ATC.slo_ms)
    for model in ATC.slo_ms:
        assert {p.source for p in found.of(model)} == {
            "measured" if model in NAMES else "predicted"
        }
        (whole,) = found.of(model, units=100)[len(BATCHES) - 1 :]
        # The objective is twice the latency of batch 32, and a tenth is added as margin.
        assert whole.latency_ms == pytest.approx(1.1 * ATC.slo_ms[model] / 2, rel=0.01)


@pytest.mark.usefixtures("folder")
def test_the_benchmark_runs_and_draws(tmp_path: Path) -> None:
    result = bench_gpulet.run(quick=True, out=tmp_path, as_json=True)
    for study in result["studies"]:
        assert set(study["admitted"]) == set(PLANNERS)
        assert study["admitted"]["gpulet+int"] <= study["admitted"]["gpulet"]
        assert study["admitted"]["gpulet+int"] <= study["admitted"]["ideal"]
    for row in result["rates"]:
        assert row["rps"]["sbp"] < row["rps"]["gpulet+int"] <= row["rps"]["gpulet"]
    assert (tmp_path / "gpulet.json").exists()
    assert (tmp_path / "gpulet.png").stat().st_size > 10_000


def test_without_the_data_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPACETIME_DATA", str(tmp_path))
    with pytest.raises(UnsupportedError, match="is absent; set SPACETIME_DATA"):
        bench_gpulet.run(quick=True)
