"""MLPerf's LoadGen as a client of a session."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from spacetime.benchmarks import bench_loadgen

ROOT = Path(__file__).parents[2]
LOADGEN = pytest.mark.skipif(
    find_spec("mlperf_loadgen") is None, reason="mlcommons-loadgen is not installed"
)
SUMMARY = """Samples per second: 43645.7
Result is : VALID
50.00 percentile latency (ns)   : 36087909
99.00 percentile latency (ns)   : 50035849
"""


def test_a_summary_is_read() -> None:
    read = bench_loadgen.read_summary(SUMMARY)
    assert read == {
        "valid": True, "p50_us": pytest.approx(36087.909), "p99_us": pytest.approx(50035.849),
        "samples_rps": 43645.7,
    }  # fmt: skip
    assert bench_loadgen.read_summary(SUMMARY.replace(": VALID", ": INVALID"))["valid"] is False
    assert bench_loadgen.read_summary("")["p50_us"] is None


def test_without_loadgen_it_is_one_line() -> None:
    code = (
        "import sys; sys.modules['mlperf_loadgen'] = None;"
        "sys.argv[1:] = ['bench', 'loadgen', '--quick'];"
        "from spacetime.cli.root import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().split("\n") == [
        "spacetime: bench loadgen: LoadGen is not installed: pip install mlcommons-loadgen"
    ]


@LOADGEN
def test_the_example_is_asked_at_random_and_judged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "under_loadgen.ask", str(tmp_path / "out"), "--qps", "150"]
    done = subprocess.run(
        [*command, "--seconds", "0.2"], cwd=ROOT / "examples", capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"Scenario : Server", done.stdout)
    assert re.search(r"Min queries satisfied : Yes", done.stdout)
    assert bench_loadgen.read_summary(done.stdout)["p50_us"] > 0
    assert (tmp_path / "out" / "mlperf_log_detail.txt").exists()


@LOADGEN
def test_every_scenario_runs_on_both(tmp_path: Path) -> None:
    result = bench_loadgen.run(quick=True, out=tmp_path, as_json=True)
    assert json.loads((tmp_path / "loadgen.json").read_text())["rows"] == result["rows"]
    assert [(row["way"], row["scenario"]) for row in result["rows"]] == [
        (way, scenario)
        for way in ("session", "thread pool")
        for scenario in bench_loadgen.SCENARIOS
    ]
    assert all(row["p50_us"] > 0 for row in result["rows"])
