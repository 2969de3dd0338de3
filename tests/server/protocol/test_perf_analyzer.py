"""Triton's perf_analyzer, unchanged, against our server; the binary is not ours to bring."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_tritonclient import KINDS

from spacetime.server.serve import Server

BINARY = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
pytestmark = pytest.mark.skipif(not BINARY, reason="neither PERF_ANALYZER nor the path has one")
# Windows too short to be stable: what is tested is that they measure, not what. It takes three of
# them that all hold requests; on a busy machine one may be empty.
QUICK = ("--measurement-interval", "200", "--stability-percentage", "999", "--max-trials", "15")


def measure(server: Server, kind: str, *options: str) -> subprocess.CompletedProcess[str]:
    port = server.http_port if kind == "http" else server.grpc_port
    command = [str(BINARY), "-i", kind, "-u", f"127.0.0.1:{port}", *QUICK, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rows(server: Server, folder: Path, kind: str, *options: str) -> list[dict[str, str]]:
    """The report, a row a load level; the server's own times are in it too."""
    report = folder / "report.csv"
    done = measure(server, kind, "-f", str(report), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    with report.open(encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    assert all(float(row["Inferences/Second"]) > 0 for row in found)
    assert all(float(row["Server Compute Infer"]) > 0 for row in found)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("levels", "options"),
    [
        (2, ("-m", "affine", "--concurrency-range", "1:2:1", "--shape", "input_0:3")),
        (1, ("-m", "two", "-x", "1", "-b", "16", "-a", "--concurrency-range", "4")),
        (1, ("-m", "halves", "--concurrency-range", "2", "--shared-memory", "none")),
        (2, ("-m", "affine", "--request-rate-range", "50:100:50",
             "--request-distribution", "poisson")),
    ],
    ids=["concurrency", "batches", "datatypes", "rates"],
)  # fmt: skip
def test_it_measures_what_it_is_asked(
    kind: str, levels: int, options: tuple[str, ...], server: Server, tmp_path: Path
) -> None:
    assert len(rows(server, tmp_path, kind, *options)) == levels


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_and_the_servers_metrics(kind: str, server: Server, tmp_path: Path) -> None:
    trace = tmp_path / "intervals"
    trace.write_text("5000\n2000\n9000\n")
    metrics = f"127.0.0.1:{server.metrics_port}/metrics"
    options = ("--collect-metrics", "--metrics-url", metrics, "--metrics-interval", "100")
    replayed = ("-m", "affine", "--request-intervals", str(trace), "--verbose-csv")
    assert len(rows(server, tmp_path, kind, *replayed, *options)) == 1


def test_a_grpc_stream(server: Server, tmp_path: Path) -> None:
    streamed = ("-m", "affine", "-a", "--streaming", "--concurrency-range", "4")
    assert len(rows(server, tmp_path, "grpc", *streamed)) == 1


def test_what_is_not_served_is_said(server: Server) -> None:
    for kind in KINDS:
        unknown = measure(server, kind, "-m", "nobody")
        assert unknown.returncode != 0
        assert "model 'nobody' is not loaded or does not exist" in unknown.stderr
    sequence = measure(server, "grpc", "-m", "affine", "--request-parameter", "sequence_id:1:int")
    assert sequence.returncode != 0
    assert "sequences are not served" in sequence.stdout + sequence.stderr
