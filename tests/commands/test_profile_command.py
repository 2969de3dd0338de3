"""`spacetime profile WORKLOAD`: measured, predicted, interrupted, resumed, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spacetime.cli.root import cli
from spacetime.devices.device import open_device
from spacetime.errors import ProfileError
from spacetime.live import profiler
from spacetime.live.profiler_rig import facts_name, known_as
from spacetime.profiles.profile import Point
from spacetime.profiles.profile_file import read_profiles, write_profiles
from spacetime.profiles.profile_rounds import Round, Rounds, read_rounds
from spacetime.workload import workload_file
from spacetime.workload.workload_file import read_workload

MODELS = """
from torch import nn

def small():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

def branching():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x
    return Branching()
"""
INPUTS = "example_inputs: [{shape: [1, 8], datatype: FP32}]"


def write_workload(folder: Path, *models: str, more: str = "") -> Path:
    (folder / "profiled_models.py").write_text(MODELS)
    lines = [
        f"  - {{name: t{n}, model: 'profiled_models:{model}', slo_ms: 50, rate_rps: 1, "
        f"{INPUTS}{more}}}"
        for n, model in enumerate(models)
    ]
    path = folder / "w.yaml"
    path.write_text("tenants:\n" + "\n".join(lines) + "\n")
    return path


def ask(*words: object) -> Any:
    found = CliRunner().invoke(cli, ["profile", *map(str, words)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def one_round(batch: int, ms: float, **other: Any) -> Round:
    values = {"model": "m", "device": "cpu-2", "kind": "cores", "units": 1, "batch": batch,
              "procs": 1, "tenants": 1, "latency_ms": ms, "low_ms": ms, "high_ms": ms,
              "launches": 3, "memory_mib": 1.0}  # fmt: skip
    return Round(**(values | other))


def test_a_profile_is_measured_and_its_rounds_are_kept(tmp_path: Path) -> None:
    path, out = write_workload(tmp_path, "small", "small"), tmp_path / "p.csv"
    asked = (path, "--device", "cpu", "--out", out, "--units", 1, "--rounds", 2, "--batches",
             "1,4", "--procs", "1,2", "--fused", "1,2", "--json")  # fmt: skip
    summary = json.loads(ask(*asked).stdout)
    points = read_profiles(out)
    assert points.device == facts_name(open_device("cpu")) == summary["device"]
    assert {(p.batch, p.procs, p.tenants) for p in points} == {
        (1, 1, 1), (1, 2, 1), (4, 1, 1), (4, 2, 1), (4, 1, 2), (4, 2, 2),
    }  # fmt: skip
    assert {point.source for point in points} == {"measured"}
    by_tenants = {point.tenants: point.memory_mib for point in points}
    state = (8 * 16 + 16 + 16 * 4 + 4) * 4 / 2**20
    assert by_tenants == {1: state, 2: 2 * state}
    rounds = read_rounds(tmp_path / "p.rounds.csv")
    assert len(rounds) == 2 * len(points) == summary["rounds_measured"]
    assert all(one.low_ms <= one.high_ms and one.launches >= 3 for one in rounds)
    before = out.read_text()
    assert json.loads(ask(*asked).stdout)["rounds_measured"] == 0
    assert out.read_text() == before


def test_two_processes_on_one_core_share_it(tmp_path: Path) -> None:
    """The median of a launch would not know: a process is fast while it has the core."""
    (tmp_path / "wide.py").write_text(
        "from torch import nn\ndef made(): return nn.Linear(256, 2048)"
    )
    spec = "example_inputs: [{shape: [1, 256], datatype: FP32}]"
    path = tmp_path / "w.yaml"
    path.write_text(f"tenants: [{{name: a, model: 'wide:made', slo_ms: 9, rate_rps: 1, {spec}}}]")
    out = tmp_path / "p.csv"
    ask(path, "--device", "cpu", "--out", out, "--units", 1, "--rounds", 3, "--batches", 16,
        "--procs", "1,4")  # fmt: skip
    alone, crowded = read_profiles(out)
    assert crowded.latency_ms > 1.5 * alone.latency_ms


def test_it_resumes_where_it_was_interrupted(tmp_path: Path) -> None:
    workload = read_workload(write_workload(tmp_path, "small"))
    device, out = open_device("cpu"), tmp_path / "p.csv"
    extent = profiler.Extent(units=(1,), batches=(1, 2, 4))
    wanted = profiler.settings(profiler.models_of(workload, tmp_path), device, extent)

    def opened() -> Rounds:
        return Rounds.open(out, facts_name(device), "measured", enough=2)

    class Killed(BaseException):
        pass

    done: list[Round] = []

    def seen(one: Round) -> None:
        done.append(one)
        if len(done) == 4:  # one point has both rounds, two have one
            raise Killed

    with pytest.raises(Killed):
        profiler.measure(wanted, device, opened(), seen=seen)
    assert [point.batch for point in read_profiles(out)] == [1]
    assert set(read_rounds(tmp_path / "p.rounds.csv")) == set(done)
    resumed: list[Round] = []
    assert profiler.missing_rounds(wanted, device, opened()) == 2
    assert profiler.measure(wanted, device, opened(), seen=resumed.append) == []
    assert [one.batch for one in resumed] == [2, 4]
    assert [point.batch for point in read_profiles(out)] == [1, 2, 4]
    kept = {one.key: one for one in read_rounds(tmp_path / "p.rounds.csv")}
    assert set(kept) == {one.key for one in done}


def test_points_are_medians_in_order_and_rounds_stay_raw(tmp_path: Path) -> None:
    rounds = Rounds.open(tmp_path / "p.csv", "cpu-2", "measured", enough=3)
    for turn, disturbed in enumerate((1, 100, 1)):
        for batch, ms in ((1, 9.0), (2, 4.0)):
            assert rounds.missing(one_round(batch, ms).key) == 3 - turn
            rounds.add(one_round(batch, ms * disturbed))
    assert [p.latency_ms for p in rounds.points()] == [9, 4]
    low, high = read_profiles(tmp_path / "p.csv")
    assert low.latency_ms == high.latency_ms == pytest.approx(6)
    assert rounds.spread(low.key) == pytest.approx(99)
    assert len(read_rounds(tmp_path / "p.rounds.csv")) == 6


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    rounds = Rounds.open(tmp_path / "p.csv", "cpu-2", "measured", enough=1)
    rounds.add(one_round(1, 5.0))
    for name in ("p.csv.new", "p.rounds.csv.new"):
        (tmp_path / name).write_text("model,dev")
    again = Rounds.open(tmp_path / "p.csv", "cpu-2", "measured", enough=1)
    assert again.points() == rounds.points()
    again.add(one_round(2, 6.0))
    assert len(read_profiles(tmp_path / "p.csv")) == 2


def test_points_without_rounds_are_kept_and_not_measured_again(tmp_path: Path) -> None:
    own = Point("m", "cpu-2", "cores", 1, 1, 1, 5.0, 200.0)
    write_profiles(tmp_path / "p.csv", [own])
    rounds = Rounds.open(tmp_path / "p.csv", "cpu-2", "measured", enough=5)
    assert (rounds.missing(own.key), rounds.points()) == (0, [own])
    assert Rounds.open(
        tmp_path / "p.csv", "cpu-2", "measured", enough=5, fresh=True
    ).missing(own.key) == 5  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cpu-4"}, "is measured on cpu-4, this is measured on cpu-2"),
        ({"source": "predicted"}, "is predicted on cpu-2, this is measured on cpu-2"),
        ({"latency_ms": float("nan")}, "p.rounds.csv:2: latency_ms: must be a number above 0"),
        ({"units": 0}, "p.rounds.csv:2: units: must be a whole number"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    found = Rounds(tmp_path / "p.csv", "cpu-2", "measured", enough=9)
    found.add(one_round(1, 5.0, **change))
    with pytest.raises(ProfileError, match=message):
        Rounds.open(tmp_path / "p.csv", "cpu-2", "measured", enough=9)


def test_a_fake_device_predicts(tmp_path: Path) -> None:
    path, out = write_workload(tmp_path, "small"), tmp_path / "p.csv"
    ask(path, "--device", "fake:h200", "--out", out, "--units", 9, "--rounds", 1, "--batches", 2)
    (point,) = read_profiles(out)
    assert (point.device, point.kind, point.units) == ("h200-141gb", "sm", 12)  # 8 and the rest
    assert point.source == "predicted"
    assert (point.memory_mib or 0) > 0


def test_a_profile_is_predicted(tmp_path: Path) -> None:
    path, out = write_workload(tmp_path, "small", more=", batch_sizes: [4, 2]"), tmp_path / "p.csv"
    summary = json.loads(ask(path, "--predict", "a100-80gb", "--out", out, "--json").stdout)
    assert (summary["points"], summary["source"]) == (5 * 2, ["predicted"])
    assert {(p.units, p.batch) for p in read_profiles(out)} == {
        (units, batch) for units in (1, 2, 3, 4, 7) for batch in (2, 4)
    }
    ask(path, "--predict", "h200-141gb", "--kind", "sm", "--dtype", "bf16", "--out", out)
    assert [p.units for p in read_profiles(out)][::2] == [16, 33, 49, 66, 82, 99, 115, 132]


@pytest.mark.parametrize(
    ("driver", "sms", "gib", "name"),
    [
        ("NVIDIA H200", 132, 140, "h200-141gb"),
        ("NVIDIA A100-SXM4-40GB", 108, 39.4, "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", 108, 79.2, "a100-80gb"),
        ("NVIDIA GeForce RTX 2080 Ti", 68, 10.8, "rtx-2080ti"),
        ("NVIDIA B200", 148, 178, "b200-180gb"),
        ("NVIDIA H100 PCIe", 114, 79, "nvidia-h100-pcie"),  # not the facts of an SXM
        ("NVIDIA GH200 480GB", 132, 95, "gh200-96gb"),  # 480 GB are the CPU's
        ("NVIDIA H100 NVL", 132, 93, "h100-nvl-94gb"),
        ("NVIDIA H100 80GB HBM3", 132, 79, "h100-80gb"),
        ("NVIDIA A30", 56, 23.5, "a30-24gb"),
        ("NVIDIA GeForce RTX 3080", 68, 10, "nvidia-geforce-rtx-3080"),
    ],
)
def test_a_device_is_called_by_its_facts(driver: str, sms: int, gib: float, name: str) -> None:
    assert known_as(driver, sms, gib) == name


REFUSED = [
    ((), "give one of --device, --predict and --import"),
    (("--device", "cpu", "--predict", "b200-180gb"), "give one of"),
    (("--device", "cpu", "--dtype", "fp16"), "--dtype has no meaning with --device"),
    (("--predict", "b200-180gb", "--fused", "2"), "--fused has no meaning with --predict"),
    (("--import", "parvagpu", "--units", "2"), "--units has no meaning with --import"),
    (("--device", "cpu", "--batches", "1,x"), "must be whole numbers such as 1,2,4"),
    (("--device", "cpu", "--batches", "0"), "must be from 1 to 256"),
    (("--device", "cpu", "--batches", "1024"), "must be from 1 to 256"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_wrong_options_are_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    found = ask(write_workload(tmp_path, "small"), "--out", tmp_path / "p.csv", *words)
    assert found.exit_code == 2
    assert message in found.output


@pytest.mark.parametrize(
    ("models", "words", "message"),
    [
        (["small"], ("--device", "cpu", "--units", "9999"), "units: 9999 cores; cpu has 1 to"),
        (["small"], ("--device", "cpu", "--batches", "1", "--fused", "2"), "nothing was measured"),
        (["small"], ("--device", "tpu"), "device 'tpu'"),
        (["small"], ("--predict", "cpu-2"), "cpu-2: to predict, a device needs bandwidth_gbs"),
        (["nothing"], ("--device", "cpu"), "has no function nothing"),
        (["branching"], ("--predict", "b200-180gb"), "tenant t0: profiled_models:branching cannot"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, models: list[str], words: tuple[str, ...], message: str
) -> None:
    path = write_workload(tmp_path, *models)
    with pytest.raises(Exception, match=message) as raised:
        ask(path, "--out", tmp_path / "p.csv", *words)
    assert "\n" not in str(raised.value)


def test_one_model_takes_one_shape(tmp_path: Path) -> None:
    path = write_workload(tmp_path, "small", "small")
    path.write_text(path.read_text().replace("[1, 8]", "[1, 9]", 1))
    with pytest.raises(workload_file.WorkloadError, match="tenant t1: example_inputs: differ from"):
        ask(path, "--device", "cpu", "--out", tmp_path / "p.csv")
