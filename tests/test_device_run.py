"""benchmarks/gpu/run.sh and the probes: whatever breaks, the rest runs and the summary tells."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spacetime.benchmarks.gpu import driver, mps, probes, questions, summary

ROOT = Path(__file__).parent.parent
RUN = ROOT / "benchmarks" / "gpu" / "run.sh"
no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here")


def run(tmp_path: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """run.sh with a shell script in the place of Python: `python` is its body."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{python}\n")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    return subprocess.run(
        ["bash", str(RUN), *arguments],
        env=os.environ | {"PYTHON": str(stand_in)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def steps(shown: str) -> dict[str, str]:
    table = shown.rsplit("headline\n", maxsplit=1)[-1]
    return {line[:12].strip(): line[13:23].strip() for line in table.strip().split("\n")}


def answering(answers: dict[str, int]) -> str:
    """A body that exits as told where its arguments hold those words; the summary is real."""
    lines = [f'  *"{words}"*) exit {code} ;;' for words, code in answers.items()]
    summarise = f'  *gpu.summary*) exec {sys.executable} "$@" ;;'
    return "\n".join(['case "$*" in', summarise, *lines, "  *) echo fine ;;", "esac"])


def test_a_failing_step_does_not_stop_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(
        tmp_path,
        answering({"-m pytest": 1, "spacetime verify": 124}),
        "--out",
        str(out),
        "--part",
        "1",
    )
    assert done.returncode == 1
    assert steps(done.stdout) == {
        "build": "ok", "doctor": "ok", "probes": "ok", "tests": "FAILED", "partition": "ok",
        "verify": "timeout",
    }  # fmt: skip
    assert {path.name for path in out.iterdir()} == {"log-1.txt", "summary-1.txt"}
    assert "== tests:" in (out / "log-1.txt").read_text()


def test_both_parts_run_and_a_good_one_ends_with_0(tmp_path: Path) -> None:
    done = run(tmp_path, answering({"gpu.mps": 4}), "--out", str(tmp_path / "out"), "--quick")
    assert done.returncode == 0
    assert "flops        ok" in done.stdout
    assert "mps          not here" in done.stdout  # no daemon: the machine's, not a failure
    assert "tests        ok" in done.stdout


def test_without_a_device_every_step_that_needs_one_says_so(tmp_path: Path) -> None:
    body = answering({}).replace(
        'case "$*" in',
        'case "$*" in\n  *"only versions"*) '
        'echo "versions     no device    0.4 s  no driver: libcuda.so.1"; exit 3 ;;',
    )
    done = run(tmp_path, body, "--out", str(tmp_path / "out"))
    assert done.returncode == 3
    assert steps(done.stdout) == {
        "build": "ok", "flops": "no device", "mps": "no device", "models": "no device"
    }  # fmt: skip
    assert "no device: no driver: libcuda.so.1" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("--out",), ("--out", "x", "--part", "3"), ("--fast",)])
def test_bad_arguments_end_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "exit 0", *arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@no_device
def test_probes_tell_of_the_missing_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probes.main(["--out", str(tmp_path / "probes.json"), "--quick"]) == probes.NO_DEVICE
    record = json.loads((tmp_path / "probes.json").read_text())
    assert [probe["status"] for probe in record["probes"].values()] == ["no device"]
    assert "no device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(("ok", "ok"), 0), (("ok", "timeout"), 1), (("failed",), 1), (("no device",), 3)],
)
def test_the_worst_probe_is_the_exit_status(statuses: tuple[str, ...], code: int) -> None:
    answers = {str(i): {"status": status} for i, status in enumerate(statuses)}
    assert probes.status_of(answers) == code


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    hang.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hang))
    assert probes.ask("versions", quick=True, timeout_s=0.2)["status"] == "timeout"


def test_the_drivers_resource_has_its_size() -> None:
    import ctypes  # noqa: PLC0415

    assert ctypes.sizeof(driver.Resource) == 144
    assert driver.Resource.sms.offset == 96


def test_questions_know_the_entries_in_use() -> None:
    assert questions.ENTRIES.exists()
    assert "sm_ids_again" in questions.QUESTIONS


def test_headlines_come_from_what_steps_wrote(tmp_path: Path) -> None:
    goal: dict[str, Any] = {"name": "conv2_2 fp32, over streams", "asked": 3.23, "got": 4.0}
    (tmp_path / "device_flops.json").write_text(json.dumps({"goals": [goal | {"met": True}]}))
    (tmp_path / "verify.json").write_text("{ not JSON")
    told = summary.table(
        "flops\tok\t12\tthe end\nverify\tFAILED\t3\tsome fault\nmps\tno device\t0\tno driver\n",
        tmp_path,
    )
    assert told.split("\n")[1:] == [
        "flops        ok            12  1 of 1 goals met; over streams 4.00",
        "verify       FAILED         3  some fault",
        "mps          no device      0  no driver",
    ]


def test_processes_are_measured_together_and_mps_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(mps, "CONTROL", "no-such-control-program")
    out = tmp_path / "mps.json"
    dry = ["--dry-run", "--problem", "rnn", "--seconds", "0.05", "--out", str(out)]
    assert mps.main(dry) == mps.NO_MPS
    record = json.loads(out.read_text())
    assert record["mps"] == "no-such-control-program is not on PATH"
    (row,) = record["rows"]
    assert len(row["launches_s"]) == row["tenants"] == 2
    assert all(rate > 0 for rate in row["launches_s"])
