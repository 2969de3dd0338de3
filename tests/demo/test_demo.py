"""The demo end to end with tiny settings, and what it does when something goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spacetime.commands import demo
from spacetime.demo import trial, verdict
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.workload.openloop import Sent

MS = 1_000_000


def test_a_small_demo_ends_with_every_answer_checked_and_its_files_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = demo.DemoCommand(
        tenants=2, seconds=0.5, model="digits", load=1.0, seed=0, out=tmp_path, as_json=True
    )
    demo.run(asked)
    report = json.loads(capsys.readouterr().out)
    assert [row["policy"] for row in report["policies"]] == list(demo.POLICIES)
    assert report["answers_checked"] > 0
    assert len({row["offered_rps"] > 0 for row in report["policies"]}) == 1
    for row in report["policies"]:
        assert 0 <= row["goodput_rps"] <= row["throughput_rps"] <= row["offered_rps"] + 1e-9
        assert row["session"]["format"] == "spacetime.report/1"
    for tenant in report["tenants"]:
        assert tenant["accuracy_alone"] > 0.9
        # None: a machine so busy that every request of this tenant missed its objective.
        assert tenant["accuracy_shared"] in (None, tenant["accuracy_alone"])
    written, timeline, picture = (
        tmp_path / name for name in ("report.json", "timeline.json", "policies.png")
    )
    assert report["files"] == [str(written), str(timeline), str(picture)]
    assert json.loads(written.read_text())["policies"] == report["policies"]
    events = json.loads(timeline.read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == set(demo.POLICIES)
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in events if e["ph"] == "X")
    assert picture.read_bytes().startswith(b"\x89PNG")


def judged(answer: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, object]:
    """The verdict on one answer to a request that the model alone answers with [1, 2]."""
    pool, alone = torch.zeros(1, 4), torch.tensor([[1.0, 2.0]])
    entry = ZooModel("eye", torch.nn.Identity(), pool, labels)
    exhibit = trial.Exhibit(entry, [pool], alone, slo_ms=20.0)
    sent = [Sent(0, 0, 0, 0, MS, answer), Sent(0, 0, MS, 0, dropped="deadline")]
    row = trial.row_of("space-time", [sent], [20.0], [])
    return verdict.judge([exhibit], [trial.PolicyRun(row, sent, [], {}, "")], {})


def test_rates_and_attainment_count_dropped_requests_as_missed() -> None:
    row = judged(torch.tensor([[1.0, 2.0]]))["policies"][0]
    assert (row["attainment"], row["dropped"]) == (0.5, {"deadline": 1})
    assert (row["offered_rps"], row["throughput_rps"]) == (2000, 1000)


@pytest.mark.parametrize("wrong", [[1.0, 2.01], [1.0, float("nan")], [2.0, 1.0]])
def test_one_wrong_answer_fails_and_names_the_tenant_and_the_error(wrong: list[float]) -> None:
    with pytest.raises(verdict.WrongAnswer, match=r"tenant eye: 1 of 1 answers under space-time"):
        judged(torch.tensor([wrong]), labels=torch.tensor([1]))


@pytest.mark.parametrize("phase", ["zoo.load", pytest.param("trial.drive", marks=pytest.mark.slow)])
def test_interrupting_ends_with_130_and_no_traceback(tmp_path: Path, phase: str) -> None:
    # The alarm is a Ctrl-C shortly after the phase began, in whatever it is then doing.
    code = f"""
import signal, sys
from spacetime.cli import root as cli
from spacetime.demo.zoo import exhibits as zoo
from spacetime.demo import trial
began = {phase}
def interrupted(*a, **k):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return began(*a, **k)
{phase} = interrupted
signal.signal(signal.SIGALRM, signal.default_int_handler)
sys.argv = ["spacetime", "demo", "--tenants", "1", "--model", "transformer", "--seconds", "30",
            "--load", "0.5", "--out", {str(tmp_path)!r}]
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("spacetime: interrupted")
