"""The benchmarks of CUDA devices, dry: the same code on CPU tensors, and their arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spacetime.benchmarks import bench_partition, record
from spacetime.benchmarks.flops.problems import PROBLEMS
from spacetime.benchmarks.gpu import contenders, flops, models, names, ours, rig, ways
from spacetime.benchmarks.gpu.run import goals
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.errors import InvalidInput, SpacetimeError, UnsupportedError

Row = dict[str, Any]


def test_a_dry_run_measures_every_way_and_records_it(tmp_path: Path) -> None:
    result = flops.run(
        device="cuda:0", dry_run=True, quick=True, out=tmp_path, as_json=True,
        problems=("rnn", "3x3-32-8", "depthwise-144-28"), tenants=(2,), dtypes=("fp32", "bf16"),
    )  # fmt: skip
    written = json.loads((tmp_path / "device_flops.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (tmp_path / "device_flops.png").stat().st_size > 1000
    assert "--device cuda:0 --dry-run" in written["command"]
    assert len(written["rows"]) == 6
    always = {
        names.LOOP,
        names.SERIAL,
        names.STREAMS,
        names.BRANCHES,
        names.VMAP,
        names.BOUND,
        names.OURS,
    }
    for row in written["rows"]:
        assert always <= set(row["us"])
        assert all(value > 0 for value in row["tflops"].values())
        assert row["speedup"].keys() == {"time-only", "space-only", "best rival", names.BOUND}
    refused = {row["problem"]: row["refused"] for row in written["rows"]}
    assert refused["rnn"].keys() == {names.GROUPED}
    assert not refused["3x3-32-8"]
    assert refused["depthwise-144-28"].keys() == {names.BATCHED}
    assert all(goal["met"] is None for goal in written["goals"])


def test_time_that_ran_out_is_recorded() -> None:
    result = flops.run(
        device="cuda:0", dry_run=True, quick=True, as_json=True, problems=("rnn",), tenants=(2, 4),
        budget_s=1e-9, dtypes=("fp32",),
    )  # fmt: skip
    assert result["rows"] == []
    assert result["left_out"] == [["rnn", 2, "fp32"], ["rnn", 4, "fp32"]]


def test_a_fault_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = flops.expected

    def lost(case: ways.DeviceCase) -> torch.Tensor:
        if case.tenants == 4:
            raise RuntimeError("CUDA error: an illegal memory access\nand more")
        return real(case)

    monkeypatch.setattr(flops, "expected", lost)
    with pytest.raises(SpacetimeError, match="rnn, R=4, fp32: CUDA error: an illegal memory"):
        flops.run(
            device="cuda:0", dry_run=True, quick=True, as_json=True, problems=("rnn",),
            tenants=(2, 4), dtypes=("fp32",), out=tmp_path,
        )  # fmt: skip
    assert len(json.loads((tmp_path / "device_flops.json").read_text())["rows"]) == 1
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "gpu7", "dry_run": False}, UnsupportedError),
        ({"device": "cuda:0", "dry_run": True, "problems": ("what",)}, InvalidInput),
        ({"device": "cuda:0", "dry_run": True, "dtypes": ("fp8",)}, InvalidInput),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        flops.run(as_json=True, quick=True, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here")
def test_no_device_is_said_and_nothing_stands_in_for_it() -> None:
    with pytest.raises(UnsupportedError, match="finds no CUDA device"):
        rig.rig_of("cuda:0", dry_run=False)


@pytest.mark.parametrize("name", ["rnn", "3x3-512-7", "1x1-64-256-56"])
def test_ours_is_all_that_a_session_would_choose_among(name: str) -> None:
    """Not Triton's kernels alone: every way of the placed layer, each tenant by its own weight."""
    problem = PROBLEMS[name]
    case = ways.case_of(problem, 3, "fp32", torch.float32, rig.DryRig(), seed=1)
    exact = ways.expected(case)
    found = dict(ours.launches(case))
    assert set(found) <= {"batched", "grouped", "unfolded", "pointwise"}
    assert len(found) == (2 if problem.convolves else 1)
    for launch in found.values():
        torch.testing.assert_close(rig.flat(launch()).double(), exact, rtol=1e-4, atol=1e-4)


def held() -> flops.Held:
    return {}, {}, {}


def test_a_way_that_answers_wrongly_is_refused() -> None:
    case = ways.case_of(PROBLEMS["rnn"], 2, "fp32", torch.float32, rig.DryRig(), seed=0)
    exact = ways.expected(case)

    def offered(answer: torch.Tensor) -> Callable[[], rig.Launch]:
        return lambda: lambda: answer

    for name, answer in {"right": exact, "wrong": exact + 1, "lost": exact * torch.nan}.items():
        launches, _, refused = kept = held()
        flops._admit(name, offered(answer), case, exact, kept)
        assert (name in launches) == (name == "right")
        assert (name in refused) == (name != "right")


def row(tenants: int, factor: float) -> Row:
    us = {
        names.LOOP: 20.0, names.SERIAL: 10.0, names.STREAMS: 8.0, names.BATCHED: 4.0,
        names.BOUND: 1.0, names.OURS: 1.0 / factor,
    }  # fmt: skip
    made = {"problem": "conv2_2", "precision": "fp32", "tenants": tenants, "us": us}
    return {**made, "speedup": goals.speedups(made)}


def test_whole_models_run_dry_with_a_session_on_a_fake_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    tiny = ZooModel("tiny", net, torch.randn(4, 3, 8, 8))
    monkeypatch.setattr(contenders, "first_of", lambda kind, seed: tiny)
    result = models.run(
        device="cuda:0", dry_run=True, quick=True, as_json=True, out=tmp_path, tenants=(3,),
        dtypes=("tf32",), seconds=0.1,
    )  # fmt: skip
    written = json.loads((tmp_path / "device_models.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (tmp_path / "device_models.png").stat().st_size > 1000
    (row,) = written["rows"]
    assert not row["refused"]
    assert {names.LOOP, names.BRANCHES, names.VMAP, names.BOUND, names.OURS} <= set(row["us"])
    assert max(row["error"].values()) < 1e-3
    assert row["serving"]["fused"]
    assert row["serving"]["closed_rps"] > 0
    assert {goal["met"] for goal in written["goals"]} == {None}  # a dry run reaches none
    assert row["factor"].keys() == row["us"].keys() - {names.OURS}


def test_a_models_row_is_written_as_it_grows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Row] = []
    real = record.save

    def save(result: Row, out: Path) -> Path:
        seen.append(json.loads(json.dumps(result["rows"][0])))
        return real(result, out)

    monkeypatch.setattr(record, "save", save)
    result = models.run(
        device="cuda:0", dry_run=True, quick=True, as_json=True, out=tmp_path, models=("tiny",),
        tenants=(3,), dtypes=("fp32",), search=False, one_bucket=True, picture=False,
    )  # fmt: skip
    (row,) = result["rows"]
    assert seen[0]["serving"]["closed_rps"] > 0  # before any rival
    assert seen[0]["us"] == {}
    counts = [len(each["us"]) for each in seen]
    assert counts == sorted(counts)
    assert counts[1] < counts[-1] == len(row["us"])
    assert [path.name for path in tmp_path.iterdir()] == ["device_models.json"]


def test_a_models_rivals_are_left_out_when_time_is_up() -> None:
    effort = models.DeviceEffort(3, 0.1, False, False, True, 0, ends=0.0)
    row: Row = {"us": {}, "error": {}, "refused": {}}
    held = contenders.tenants_of(contenders.TINY, 2, torch.float32, 0)
    dry = rig.DryRig()
    with dry.current():
        models._measure(row, held, dry, effort, device="fake:h200", tell=lambda: None)
    assert row["refused"][names.LOOP] == "left out for want of time"
    assert row["us"].keys() == {names.OURS}
    assert row["serving"]["fused"]


def test_a_session_of_one_bucket_captures_that_one_only() -> None:
    held, x = contenders.tenants_of(contenders.TINY, 3, torch.float32, 0)
    with closing(contenders.Ours("fake:h200", held, x, one_bucket=True)) as ours:
        assert ours._family.buckets == (4,)
        assert len(ours.launched()) == 3


def test_a_model_that_no_session_captures_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    monkeypatch.setattr(
        contenders, "first_of", lambda kind, seed: ZooModel("b", Branches(), torch.ones(2, 4))
    )
    result = models.run(
        device="cuda:0", dry_run=True, quick=True, as_json=True, tenants=(2,), dtypes=("fp32",)
    )
    (row,) = result["rows"]
    assert "the session runs the model PyTorch, eagerly" in row["refused"][names.OURS]
    assert names.LOOP in row["us"]


def test_models_goals_want_every_precision() -> None:
    us = {
        names.LOOP: 6.0,
        names.SERIAL: 5.5,
        names.STREAMS: 1.9,
        names.BRANCHES: 1.4,
        names.OURS: 1.0,
    }
    made: Row = {"model": "resnet-50", "precision": "bf16", "tenants": 16, "us": us}
    made |= {"speedup": goals.speedups(made), "serving": {"p99_over_p50": 1.1}}
    found = goals.models_goals([made])
    met = {goal.name.split(", ")[-1]: goal.met for goal in found if "bf16" in goal.name}
    assert len(found) == 2 * len(met)  # tf32 is asked for as well, and was not measured
    assert met == {
        "over time-only": True, "over space-only": False, "branches": True,
        "p99 over p50 at 80 % load": True,
    }  # fmt: skip


def test_goals_take_the_strongest_of_each_kind_of_rival() -> None:
    assert goals.speedups(row(2, 1.0)) == {
        "time-only": 10.0, "space-only": 8.0, "best rival": 4.0, names.BOUND: 1.0
    }  # fmt: skip
    assert goals.hardest(row(2, 1.0)) == names.BATCHED
    got = {goal.name: goal for goal in goals.flops_goals([row(1, 100), row(2, 0.5), row(4, 2.0)])}
    over = got["conv2_2 fp32, over captured launches in turn (time-only)"]
    assert over.got == pytest.approx(10.0)  # one tenant alone does not count
    assert over.met
    assert over.over == "mean of R = 2, 4"
    assert not goals.Goal("p99", 1.2, 1.3, below=True).met
    assert goals.Goal("p99", 1.2, None).met is None
    assert all(goal.met is None for goal in goals.flops_goals([]))


def test_eager_baselines_are_held_against_a_launch_that_pays_its_host_too() -> None:
    made = row(2, 1.0) | {"wall_us": {names.LOOP: 60.0, names.STREAMS: 30.0, names.OURS: 6.0}}
    assert goals.factors(made) == {
        names.LOOP: 10.0, names.SERIAL: 10.0, names.STREAMS: 5.0, names.BATCHED: 4.0,
        names.BOUND: 1.0,
    }  # fmt: skip
    assert goals.factors(row(2, 1.0))[names.LOOP] == 20.0  # by device time where that is all
    assert goals.losses(made) == []
    assert goals.losses(row(2, 0.2)) == [names.BATCHED]  # the bound is nobody to lose to
    assert set(goals.factors(made)) < set(names.STANDS_FOR)


def test_the_bound_is_approached_by_the_worst_of_many_tenants() -> None:
    found = goals.flops_goals([row(8, 0.1), row(16, 0.95), row(64, 0.92), row(120, 0.99)])
    (bound,) = [goal for goal in found if "bound" in goal.name]
    assert (bound.got, bound.met) == (pytest.approx(0.92), True)
    assert bound.over == "worst of R = 16, 64, 120"


def test_processes_are_held_against_ours_at_their_own_number() -> None:
    ours = [row(r, 1.0) | {"wall_us": {names.OURS: 4.0 * r}} for r in (4, 8)]
    rows = [
        {"way": names.PROCESSES, "launched": launched, "tenants": 8, "launches_s": [rate] * 8}
        for launched, rate in (("captured", 1.0), ("eager", 2500.0))
    ]
    found = {goal.name: goal for goal in goals.flops_goals(ours, rows)}
    over = found["conv2_2 fp32, over a process a tenant in turn"]
    assert over.got == pytest.approx(12.5)  # 250,000 answers a second over 20,000
    assert found["conv2_2 fp32, over processes under MPS"].met is None


def test_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with rig.precision("tf32") as dtype:
        assert dtype == torch.float32
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    with rig.precision("fp32"):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.benchmark  # a session must not search at each bucket
    with rig.searched():
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_a_fake_devices_ladder_is_measured_in_virtual_time(tmp_path: Path) -> None:
    result = bench_partition.run(device="fake:h200", quick=True, out=tmp_path, as_json=True)
    written = json.loads((tmp_path / "partition.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert (tmp_path / "partition.png").stat().st_size > 1000
    assert written["virtual"]
    assert sum(written["unit_sms"]) == written["sms"] == 132
    rates = [row["tflops"] for row in written["rows"]]
    assert rates == sorted(rates)  # more SMs, more arithmetic
    first, last = written["rows"][0], written["rows"][-1]
    assert last["gbs"] / first["gbs"] < last["sms"] / first["sms"]  # a few SMs fill the memory
    assert written["switch_us"]["median"] > 0
    assert [goal["met"] for goal in written["goals"]] == [None, None]  # a model reaches no goal


def test_partitions_of_sms_need_a_device_that_has_them() -> None:
    with pytest.raises(UnsupportedError, match="need cuda:N or fake:h200"):
        bench_partition.run(device="cpu", quick=True, as_json=True)
