"""PARIS+ELSA's and ParvaGPU's evaluations: their set-ups, and what of them must come out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from published import parvagpu

from spacetime.benchmarks import bench_paris, bench_parvagpu, record
from spacetime.benchmarks.studies import paris
from spacetime.benchmarks.studies.paris import ELSA, FIFS, ParisSetting
from spacetime.devices import mig
from spacetime.errors import UnsupportedError
from spacetime.profiles.profile import Point, Profiles


def test_layouts_fill_the_devices() -> None:
    counts = [len(paris.homogeneous(units, 4)) for units in mig.SIZES]
    assert counts == [28, 12, 8, 4, 4]
    for seed in range(5):
        assert 6 * 3 <= sum(paris.at_random(3, seed)) <= 7 * 3
    assert paris.at_random(8, 1) == paris.at_random(8, 1) != paris.at_random(8, 2)


def test_one_queue_of_equal_instances_is_m_d_c() -> None:
    # Requests of one size, 10 ms each: within 20 ms, 95 % of them may wait as long as one takes.
    points = tuple(Point("m", "a100-80gb", "mig", 7, batch, 1, 10, batch * 100) for batch in (1, 2))
    setting = ParisSetting("m", 1, Profiles(points), sla=2, largest=1, requests=40_000)
    assert (setting.slo_ms, setting.mix) == (20, ((1, 1.0),))
    one = paris.highest_rps(setting, (7,), FIFS)
    assert one == pytest.approx(28.8, rel=0.04)  # Erlang: (1 - rho) e^rho = 0.95
    two = paris.highest_rps(setting, (7, 7), FIFS)
    assert 2 * one < two < 200  # pooling pays
    assert paris.highest_rps(setting, (7, 7), ELSA) == pytest.approx(two, rel=0.05)


def test_elsa_is_what_makes_instances_of_several_sizes_usable(tmp_path: Path) -> None:
    result = bench_paris.run(quick=True, out=tmp_path, as_json=True)
    assert [row["model"] for row in result["rows"]] == ["bert", "inceptionv3"]
    for row in result["rows"]:
        assert row["rps"]["paris elsa"] > 1.5 * row["rps"]["7g fifs"] > 0
        assert row["rps"]["paris fifs"] == row["rps"]["1g fifs"] == 0
        assert len(row["layout"]) > 1
    held = {(each["better"], each["worse"]): each["held"] for each in result["order"]}
    assert len(held["paris elsa", "best homogeneous"]) == 2
    assert (tmp_path / "paris.json").exists()
    assert (tmp_path / "paris.png").stat().st_size > 10_000


def test_a_largest_request_nobody_measured_is_refused() -> None:
    setting = ParisSetting("bert", 1, parvagpu(), largest=4096)
    with pytest.raises(UnsupportedError, match="largest: bert has no batch of 4096"):
        paris.paris(setting)


def test_parvagpus_devices_are_those_of_its_artifact(tmp_path: Path) -> None:
    result = bench_parvagpu.run(quick=True, out=tmp_path, as_json=True)
    assert {row["scenario"] for row in result["rows"]} == {"S1", "S2"}
    for row in result["rows"]:
        assert row["gpus"] == row["paper_gpus"], row
        assert row["paper_slices"] in {None, row["slices"]}, row
    assert (tmp_path / "parvagpu.png").stat().st_size > 10_000


@pytest.mark.parametrize("run", [bench_paris.run, bench_parvagpu.run])
def test_without_the_data_it_says_so(
    run: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "benchmarks" / "record.py"))
    with pytest.raises(UnsupportedError, match="is absent; run this in a checkout"):
        run(quick=True)  # type: ignore[operator]
