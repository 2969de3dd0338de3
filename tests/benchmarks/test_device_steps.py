"""The steps of run.sh by themselves: probes, processes under MPS, and what the summary says."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from spacetime.benchmarks.gpu import driver, mps, names, probes, questions
from spacetime.benchmarks.gpu.run import goals, summary, surroundings

ROOT = Path(__file__).parents[2]
no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here")
Answer = dict[str, Any]


@no_device
def test_probes_tell_of_the_missing_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "probes.json"
    assert probes.main(["--out", str(out), "--only", "versions"]) == probes.NO_DEVICE
    record = json.loads(out.read_text())
    assert [probe["status"] for probe in record["probes"].values()] == ["no device"]
    assert "no device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(("ok", "ok"), 0), (("ok", "timeout"), 1), (("failed",), 1), (("no device",), 3)],
)
def test_the_worst_probe_is_the_exit_status(statuses: tuple[str, ...], code: int) -> None:
    answers = {str(i): {"status": status} for i, status in enumerate(statuses)}
    assert probes.status_of(answers) == code


def answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loop: str, *, timeout_s: float = 30.0
) -> dict[str, Answer]:
    """Every question asked of a shell script in Python's place: `loop` answers one, `$name`."""
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/bash\necho imported; read -r go\n"
        f'while [ $# -gt 0 ]; do case "$1" in --answer) name=$2; {loop};; esac; shift; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    found: dict[str, Answer] = {}
    probes.ask_all(names.QUESTIONS, found.__setitem__, quick=True, timeout_s=timeout_s)
    return found


def test_a_probe_that_breaks_its_process_breaks_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop = """
    case $name in
      graph_sms) echo "cuGraphLaunch failed with 700" >&2; exit 1;;
      contexts) exec tail -f /dev/null;;
      *) echo "{\\"pid\\": $$, \\"queues\\": \\"${CUDA_DEVICE_MAX_CONNECTIONS:-}\\"}";;
    esac"""
    before = psutil.Process().children()  # of other tests: torch's compiler keeps its workers
    found = answered(monkeypatch, tmp_path, loop, timeout_s=3.0)
    assert [*found] == [*names.QUESTIONS]
    bad = {name: told["status"] for name, told in found.items() if told["status"] != "ok"}
    assert bad == {"contexts": "timeout", "graph_sms": "failed"}
    assert found["graph_sms"]["error"] == "cuGraphLaunch failed with 700"
    pids = {name: told["answer"]["pid"] for name, told in found.items() if name not in bad}
    assert pids["versions"] == pids["sm_ids"] != pids["clusters"] == pids["gpm"]
    assert len({pids[name] for name in ("sm_ids", "sm_ids_again", "queues_8", "queues_32")}) == 4
    assert found["queues_8"]["answer"]["queues"] == "8"
    assert set(psutil.Process().children()) <= set(before)


def test_without_a_device_only_the_first_probe_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = answered(monkeypatch, tmp_path, 'echo "no driver" >&2; exit 3')
    assert {name: told["status"] for name, told in found.items()} == {"versions": "no device"}


def test_the_drivers_structures_have_their_sizes() -> None:
    assert ctypes.sizeof(driver.Resource) == 144
    assert driver.Resource.sms.offset == 96
    assert ctypes.sizeof(driver.KernelNode) == 72
    assert driver.KernelNode.context.offset == 64


def test_questions_know_the_entries_in_use() -> None:
    assert questions.ENTRIES.exists()
    assert questions.ANSWERS["sm_ids_again"] is questions.ANSWERS["sm_ids"]
    assert set(probes.ENVIRONMENTS) < set(names.QUESTIONS)


@pytest.fixture
def control(tmp_path: Path) -> str:
    """A stand-in for the control program of MPS."""
    program = tmp_path / "control"
    text = (ROOT / "tests/rigs/mps_stand_in.py").read_text()
    program.write_text(f"#!{sys.executable} -S\n{text}")
    program.chmod(0o755)
    return str(program)


def started(
    out: Path, *options: str, stand_in: str = "", seconds: str = "0.02"
) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "spacetime.benchmarks.gpu.mps",
        "--dry-run",
        "--problem",
        "rnn",
        "--tenants",
        "2",
        "--seconds",
        seconds,
        "--out",
        str(out),
    ]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "STAND_IN": stand_in, "OMP_NUM_THREADS": "1"},
    )


def test_processes_are_measured_together_and_under_mps(tmp_path: Path, control: str) -> None:
    out = tmp_path / "mps.json"
    process = started(out, "--control", control)
    process.communicate(timeout=200)
    assert process.returncode == 0
    record = json.loads(out.read_text())
    assert record["mps"] == ""
    rows = {(row["way"], row["launched"]): row for row in record["rows"]}
    assert [*rows] == [
        (way, launched) for way in (names.PROCESSES, names.UNDER_MPS) for launched in mps.LAUNCHED
    ]
    for row in rows.values():
        assert len(row["launches_s"]) == row["tenants"] == 2
        assert all(rate > 0 for rate in row["launches_s"])


def test_sigterm_ends_the_processes_and_the_daemon_and_keeps_the_rows(
    tmp_path: Path, control: str
) -> None:
    out = tmp_path / "mps.json"
    process = started(out, "--control", control, stand_in="deaf")  # no client is ever served
    tree = psutil.Process(process.pid)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("processes, captured"):
            break
    children = tree.children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=150)
    assert process.returncode == 128 + signal.SIGTERM
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert len(json.loads(out.read_text())["rows"]) == 2


def test_surroundings_are_told_without_a_build_or_a_device() -> None:
    told: list[dict[str, Any]] = []
    assert surroundings.step(told.append, rehearse=True) == 0
    assert told[-1]["cores"] == len(os.sched_getaffinity(0))
    assert told[-1]["packages"]["torch"] == version("torch")
    json.dumps(told)


@no_device
def test_a_missing_driver_or_device_is_a_fact() -> None:
    found = surroundings.asked_driver()
    assert found["device"].startswith(("no driver: ", "no device: "))
    assert "sms" not in found


FACTORS = {
    names.LOOP: 9.0,
    names.SERIAL: 3.5,
    names.STREAMS: 4.0,
    names.BATCHED: 0.5,
    names.BOUND: 0.95,
}


def record_of(tenants: int, factors: dict[str, float]) -> Answer:
    """A case in which ours takes 10 us by either clock."""
    us = {way: 10.0 * factor for way, factor in factors.items()} | {names.OURS: 10.0}
    row: Answer = {"problem": "conv2_2", "precision": "fp32", "tenants": tenants, "us": us}
    row |= {"wall_us": {way: us[way] for way in (*names.EAGER, names.OURS)}}
    row |= {"tflops": {names.OURS: 12.0}, "speedup": goals.speedups(row)}
    return row | {"factor": goals.factors(row), "lost_to": goals.losses(row)}


def test_the_summary_names_every_baseline_and_the_losses() -> None:
    rows = [record_of(16, FACTORS)]
    rates = {
        "way": names.PROCESSES,
        "launched": "eager",
        "tenants": 16,
        "launches_s": [10_000.0] * 16,
    }
    records: dict[str, Any] = {
        "device_flops": {"rows": rows, "left_out": []},
        "mps": {"rows": [rates], "mps": "no daemon"},
        "tests": {"passed": 3, "failed": 1, "failures": ["tests/x.py::test_y"], "groups": {}},
    }
    told = [{"name": "flops", "status": "ok", "seconds": 60, "last": "wrote it"}]
    said = summary.text(told, records).splitlines()
    assert (
        "flops            ok                60  1 cases, ours up to 12 TFLOP/s, 1 lost, " in said[1]
    )
    assert any(
        line.startswith("conv2_2 fp32 R=16: loop x9.00, graph, serial x3.50") for line in said
    )
    assert "conv2_2 fp32 R=16: LOST to cuBLAS batched" in said
    assert "test failed: tests/x.py::test_y" in said
    verdicts = {line[13:].split(":")[0]: line for line in said[said.index("") :]}
    over = "conv2_2 fp32, over "
    assert verdicts[over + "captured launches in turn (time-only)"].startswith("met ")
    assert verdicts[over + "the best of all rivals"].startswith("MISSED ")
    assert verdicts[over + "processes under MPS"].startswith("not measured ")
    # 16 answers in 10 us are 1.6 million a second: ten times those of the processes.
    assert ": 10, asked >= 7.73 (at R = 16)" in verdicts[over + "a process a tenant in turn"]
    assert "MISSED" in verdicts["tests on the device that fail"]


def test_a_summary_that_is_too_long_keeps_every_verdict() -> None:
    rows = [record_of(count, FACTORS) for count in range(2, 400)]
    told = [
        {"name": f"step {i}", "status": "FAILED", "seconds": 9, "last": "x" * 500}
        for i in range(20)
    ]
    said = summary.text(told, {"device_flops": {"rows": rows, "left_out": []}})
    assert 10_000 < len(said) < 12_000
    last = said.splitlines()[-len(goals.every({})) :]
    assert all(line.startswith(tuple(goals.WORDS.values())) for line in last)


@pytest.mark.parametrize("text", ["{ not JSON", "[]", "", '{"rows": [{}]}'])
def test_a_record_that_cannot_be_read_is_not_measured(tmp_path: Path, text: str) -> None:
    for topic in ("partition", "verify", "device_flops", "device_models"):
        (tmp_path / f"{topic}.json").write_text(text)
    (tmp_path / "junit.xml").write_text("<testsuites><")
    records = summary.read_records(tmp_path, {})
    said = summary.text(
        [{"name": "verify", "status": "FAILED", "seconds": 1, "last": "why"}], records
    )
    assert "verify           FAILED             1  why" in said
    assert f"0 met, 0 MISSED, {len(goals.every({}))} not measured" in said
