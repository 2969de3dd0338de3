"""The benchmarks run and record what they say; how fast is their own business."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spacetime.benchmarks import bench_flops, bench_models, bench_proc, compare, record
from spacetime.benchmarks.driving import lanes
from spacetime.benchmarks.driving.booth import Keeper
from spacetime.benchmarks.flops import modes
from spacetime.benchmarks.flops.problems import PROBLEMS
from spacetime.demo.zoo.exhibits import ZooModel

WORDS = st.text('ab"{}[], ', max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False)
RECORDS = st.recursive(
    SCALARS | WORDS, lambda part: st.lists(part, max_size=60) | st.dictionaries(WORDS, part)
)


def test_flops_measures_every_way_for_every_row(tmp_path: Path) -> None:
    result = bench_flops.run(
        quick=True, out=tmp_path, as_json=True, problems=("rnn",), tenants=(1, 3)
    )
    written = json.loads((tmp_path / "flops.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (tmp_path / "flops.png").stat().st_size > 1000
    assert {"cpu", "cores", "torch", "commit", "command", "seed"} <= written.keys()
    assert [(row["problem"], row["tenants"]) for row in written["rows"]] == [("rnn", 1), ("rnn", 3)]
    for row in written["rows"]:
        assert all(value > 0 for value in row["gflops"].values())
        assert set(row["gflops"]) == {*bench_flops.AGAINST, "space-time"}
        assert row["chosen"]["time-only"].endswith("all cores")
        assert row["chosen"]["space-only"].endswith("one-core lanes")


def test_a_way_that_answers_wrongly_is_refused() -> None:
    with lanes.PinnedLanes() as opened:
        case = modes.case_of(PROBLEMS["depthwise-144-28"], 3, opened, seed=0)
        modes.check(case, modes.choices(case))
        with modes.rivals(case) as rounds, pytest.raises(RuntimeError, match="one batch"):
            modes.check(case, rounds)


def test_models_asks_every_server_and_none_answers_wrongly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    first = ZooModel("tiny", model, torch.randn(6, 8))
    effort = bench_models.LoopEffort(seconds=0.05, repetitions=1, seed=0)
    with bench_models.booths(bench_models.SERVERS, first, seed=0) as opened:
        rows = bench_models.rows_of({"model": "tiny", "tenants": 2}, opened, 10.0, [0.5], effort)
        errors = {name: opened[name].ask(partial(Keeper.errors, tenants=2)) for name in opened}
        endless = partial(Keeper.open_loop, tenants=0, rate_rps=1, slo_ns=1, seconds=1, seed=0)
        with pytest.raises(RuntimeError, match="time-only: WorkloadError"):
            opened["time-only"].ask(endless)
    closed, open_ = json.loads(json.dumps(rows))
    assert set(closed["throughput_rps"]) == set(bench_models.SERVERS)
    assert all(value > 0 for value in closed["throughput_rps"].values())
    assert "family of 2" in closed["how"]
    assert set(open_["goodput_rps"]) == set(closed["throughput_rps"])
    assert max(errors.values()) < 1e-4, errors


def test_compare_matches_rows_by_their_settings() -> None:
    before = {"topic": "flops", "rows": [{"problem": "rnn", "tenants": 2, "gflops": {"vmap": 2.0}}]}
    after = {
        "topic": "flops",
        "rows": [
            {"problem": "rnn", "tenants": 2, "gflops": {"vmap": 3.0, "new": 1.0}, "lost": False},
            {"problem": "rnn", "tenants": 4, "gflops": {"vmap": 5.0}},
        ],
    }
    assert compare.changes(before, after) == [("rnn 2", "gflops.vmap", 2.0, 3.0)]
    with pytest.raises(ValueError, match="topic"):
        compare.changes(before, {"topic": "models", "rows": []})


def test_a_geometric_mean_of_nothing_is_none() -> None:
    assert record.geometric_mean([]) is None
    assert record.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


@given(RECORDS, st.integers(0, 60))
def test_a_recorded_file_says_the_same_in_short_lines(value: object, before: int) -> None:
    laid = record.laid_out(value, before=before)
    assert json.loads(laid) == value
    first, *rest = laid.split("\n")
    assert len(rest) <= len(json.dumps(value, indent=1).split("\n"))
    assert all(len(line) <= record.RECORD_WIDTH for line in [" " * before + first, *rest])


def test_a_move_takes_one_line_and_numbers_fill_theirs() -> None:
    moves = [{"why": "vgg16: 246 req/s, planned for 213", "at_ns": 242_000_000_000}] * 9
    laid = record.laid_out({"moves": moves, "devices": [3] * 720}).split("\n")
    assert len([line for line in laid if "vgg16" in line]) == 9
    assert len(laid) < 9 + 720 * 3 / 190 + 6


def test_proc_measures_both_kinds_of_lanes(tmp_path: Path) -> None:
    result = bench_proc.run(quick=True, out=tmp_path, as_json=True)
    assert json.loads((tmp_path / "proc.json").read_text()) == json.loads(json.dumps(result))
    assert [row["way"] for row in result["rows"]] == ["wake-ups", "thread", "process"] * 2
    assert all(0 < row["p50_us"] <= row["p99_us"] for row in result["rows"])
    assert "goal" in bench_proc.shown(result).heads[-1]
