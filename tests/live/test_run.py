"""`spacetime run`: every request sent is accounted for, also when interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from spacetime import Recording, replay
from spacetime.commands.run import RunCommand, run
from spacetime.errors import InvalidInput, ModelError, PlanError
from spacetime.units import SECOND
from spacetime.workload.workload_file import read_workload

CORES = len(os.sched_getaffinity(0))
SOURCE = """
import torch
from torch import nn

class Net(nn.Sequential):
    "A class that is found beside the workload file only."

def mlp():
    return Net(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

class Broken(nn.Module):
    "Answers what has the signs of the request it is tried with, and nothing else."
    known = None
    def forward(self, x):
        if self.known is None:
            self.known = x[:1].sign()
        if not torch.equal(x.sign(), self.known.expand_as(x)):
            raise ValueError("not this one")
        return x + 1

def broken():
    return Broken()
"""
WORK = """
tenants:
  - {{name: a, model: "{0}:mlp", slo_ms: 2000, rate_rps: 80, example_inputs: [{1}]}}
  - {{name: b, model: "{0}:mlp", slo_ms: 2000, rate_rps: 40, example_inputs: [{1}]}}
seed: 5
"""
INPUT = "{shape: [1, 6], datatype: FP32}"
OPTIONS: dict[str, Any] = {
    "plan": None, "profiles": None, "gpu": None, "policy": None, "device": "cpu", "duration": 0.5,
    "isolation": "thread", "max_procs": 3, "max_utilisation": 0.9, "controller": False,
    "period": 1.0, "explain": False, "out": None, "as_json": True,
}  # fmt: skip


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    path = tmp_path / "work.yaml"
    path.write_text(WORK.format(name, INPUT))
    return path


@pytest.fixture
def profiles(workload: Path) -> Path:
    model = next(workload.parent.glob("nets_*.py")).stem + ":mlp"
    rows = [
        f"{model},cpu-{CORES},cores,{units},{batch},1,{batch},1000,measured"
        for units in sorted({1, CORES})
        for batch in (1, 2, 4)
    ]
    path = workload.parent / "profiles.csv"
    header = "model,device,kind,units,batch,procs,latency_ms,throughput_rps,source"
    path.write_text("\n".join([header, *rows]))
    return path


def due(workload: Path) -> int:
    """How many requests half a second holds."""
    return len([*read_workload(workload).schedule(duration_ns=SECOND // 2)])


def reconciles(report: dict[str, Any]) -> None:
    for row in (report["overall"], *report["tenants"].values()):
        assert row["offered"] == row["completed"] + sum(row["dropped"].values())


def test_a_workload_runs_and_every_request_is_accounted_for(
    workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = workload.parent / "out"
    run(RunCommand(workload=workload, **OPTIONS | {"out": out}))
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text())
    assert report["format"] == "spacetime.report/1"
    reconciles(report)
    assert report["overall"]["offered"] == report["overall"]["completed"] == due(workload) > 20
    assert report["overall"]["attainment"] == 1
    assert report["run"]["policy"] == "space-time"
    events = json.loads((out / "timeline.json").read_text())["traceEvents"]
    assert sum(e["args"]["requests"] for e in events if e["ph"] == "X") == due(workload)
    again = replay(Recording.load(out / "run.recording"))
    again.check()
    assert again.requests >= due(workload)


def test_profiles_alone_make_a_plan_that_is_run(
    workload: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(RunCommand(workload=workload, **OPTIONS | {"profiles": profiles}))
    report = json.loads(capsys.readouterr().out)
    reconciles(report)
    assert report["overall"]["completed"] == due(workload)
    assert report["plan"] == {"planner": "spacetime", "gpu": 0}
    assert all("id" in row for row in report["partitions"])


def test_lanes_of_cores_may_be_processes(
    workload: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = OPTIONS | {"isolation": "process"}
    run(RunCommand(workload=workload, **apart | {"profiles": profiles, "explain": True}))
    told = capsys.readouterr()
    report = json.loads(told.out)
    reconciles(report)
    assert report["overall"]["completed"] == due(workload)
    assert "  in a process for each lane\n  runs as: " in told.err
    with pytest.raises(InvalidInput, match="isolation must be 'thread' for partitions of kind sm"):
        run(RunCommand(workload=workload, **apart | {"device": "fake:h200"}))


def test_a_plan_is_read_checked_and_run(
    workload: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = workload.parent / "plan.json"
    assignments = [
        {"tenant": name, "batch": 1, "rate_rps": rate, "latency_ms": 2000, "duty_ms": 5}
        for name, rate in (("a", 80), ("b", 40))
    ]
    made = {
        "format": "spacetime.plan/1", "planner": "by hand", "device": f"cpu-{CORES}",
        "gpus": [{"id": 0, "partitions": [
            {"id": "all", "kind": "cores", "units": CORES, "procs": 1, "tenants": assignments}
        ]}],
    }  # fmt: skip
    plan.write_text(json.dumps(made))
    asked = OPTIONS | {"plan": plan, "profiles": profiles, "as_json": False, "explain": True}
    run(RunCommand(workload=workload, **asked))
    shown = capsys.readouterr().out
    assert "policy of the plan by by hand: route weighted, order duty" in shown
    count = due(workload)
    assert f"{count} requests, {count} answered, none dropped, 100.00 % in time" in shown
    assignments[0]["rate_rps"] = 10
    plan.write_text(json.dumps(made))
    with pytest.raises(PlanError, match="by hand: a: rate"):
        run(RunCommand(workload=workload, **asked))
    with pytest.raises(PlanError, match="--plan: give --profiles too"):
        run(RunCommand(workload=workload, **asked | {"profiles": None}))


def test_a_controller_watches_where_there_are_profiles(
    workload: Path, profiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PlanError, match="--controller: give --profiles too"):
        run(RunCommand(workload=workload, **OPTIONS | {"controller": True}))
    asked = OPTIONS | {"controller": True, "period": 0.1, "profiles": profiles}
    run(RunCommand(workload=workload, **asked))
    report = json.loads(capsys.readouterr().out)
    reconciles(report)
    assert set(report["controller"]["rates"]) == {"a", "b"}


def test_a_model_that_raises_fails_its_own_requests_and_is_reported(
    workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = workload.read_text()
    place = text.index(":mlp", text.index("name: b"))
    workload.write_text(text[:place] + ":broken" + text[place + 4 :])
    with pytest.raises(ModelError, match="tenant b: the model raised ValueError: not this one"):
        run(RunCommand(workload=workload, **OPTIONS))
    report = json.loads(capsys.readouterr().out)
    reconciles(report)
    assert report["tenants"]["a"]["dropped"] == {}
    assert report["tenants"]["b"]["dropped"]["failed"] > 0
    assert report["tenants"]["b"]["completed"] > 0  # those it knows


MINUTES = [str(minute) for minute in range(1, 1441)]
# Each form with 60 requests that last less than half a second at its time_scale; by tenant where
# the recording has streams of its own: the busiest is that of the tenant of the highest rate.
RECORDED = {
    "azure-functions-2019": (600, {"a": 40, "b": 20}, "\n".join(",".join(row) for row in [
        ["HashOwner", "HashApp", "HashFunction", "Trigger", *MINUTES],
        ["o", "p", "small", "http", *("20" if m == "2" else "0" for m in MINUTES)],
        ["o", "p", "busy", "http", *("20" if m in {"1", "4"} else "0" for m in MINUTES)],
    ])),
    "azure-functions-2021": (10, {"a": 40, "b": 20}, "\n".join([
        "app,func,end_timestamp,duration",
        *(f"p,{'busy' if n % 3 else 'small'},{90 + n / 15:.3f},0.5" for n in range(60)),
    ])),
    "azure-llm": (10, None, "\n".join([
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        *(f"2023-11-16 18:17:0{n // 15}.{n % 15 * 6:02},{n + 1},10" for n in range(60)),
    ])),
    "twitter": (10, None, "30\n0\n20\n10"),
}  # fmt: skip


@pytest.mark.parametrize("form", RECORDED)
def test_a_recording_is_replayed_to_several_tenants(
    workload: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    time_scale, by_tenant, text = RECORDED[form]
    (workload.parent / "recording.csv").write_text(text + "\n")
    arrivals = f"{{process: trace, file: recording.csv, form: {form}, time_scale: {time_scale}}}"
    workload.write_text(f"{workload.read_text()}arrivals: {arrivals}\n")
    run(RunCommand(workload=workload, **OPTIONS | {"duration": 0.5}))
    report = json.loads(capsys.readouterr().out)
    reconciles(report)
    assert report["run"]["arrivals"] == "trace"
    assert report["overall"]["offered"] == report["overall"]["completed"] == 60
    offered = {name: row["offered"] for name, row in report["tenants"].items()}
    if by_tenant is None:  # one stream, dealt out by the tenants' rates of 80 and 40
        assert offered["a"] > offered["b"] > 0
    else:
        assert offered == by_tenant


# A shell that starts jobs behind itself leaves SIGINT ignored; a terminal does not.
MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from spacetime.cli.root import main; main()"
)


def begun(workload: Path, *options: str) -> subprocess.Popen[str]:
    """A run of ten minutes that has sent requests for a second and a half."""
    command = [
        sys.executable, "-c", MAIN, "run", str(workload), "--device", "cpu", "--duration", "600",
        "--explain", "--json", *options,
    ]  # fmt: skip
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    for line in run.stderr:  # the explanation comes before the first request
        if "runs as" in line:
            break
    with suppress(subprocess.TimeoutExpired):
        run.wait(1.5)
    return run


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_reports_what_was_accepted(
    workload: Path, number: signal.Signals, status: int
) -> None:
    begun_run = begun(workload)
    begun_run.send_signal(number)
    out, err = begun_run.communicate(timeout=60)
    assert begun_run.returncode == status, err
    assert "Traceback" not in err
    report = json.loads(out)
    assert report["run"]["interrupted"]
    reconciles(report)
    assert report["seconds"] < 60


@pytest.mark.parametrize("full", ["files", "stdout"])
def test_a_full_disk_is_one_line_and_the_report_is_not_lost(workload: Path, full: str) -> None:
    out = workload.parent / "out"
    command = [sys.executable, "-m", "spacetime", "run", str(workload), "--device", "cpu",
               "--duration", "0.2", "--json", "--out", str(out)]  # fmt: skip
    out.mkdir()
    if full == "files":
        (out / "report.json").symlink_to("/dev/full")
    with open("/dev/full" if full == "stdout" else workload.parent / "said", "w") as stdout:
        run = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=100
        )
    assert run.returncode == 1
    assert run.stderr.strip().split("\n") == [
        "spacetime: output: No space left on device; make room, or write elsewhere"
    ]
    written = workload.parent / "said" if full == "files" else out / "report.json"
    reconciles(json.loads(written.read_text()))
