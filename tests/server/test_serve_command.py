"""`spacetime serve` as a process: addresses, answers, refusals in one line, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE = "rate_rps: 1, example_inputs: [{shape: [1, 3], datatype: FP32}]"
WORKLOAD = f"""
tenants:
  - {{name: a, model: "served_models:affine", slo_ms: 10000, {ONE}}}
  - {{name: gate, model: "served_models:file_gate", slo_ms: 60000, {ONE}}}
"""
ANY = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    (tmp_path / "served_models.py").write_text((HERE / "served_models.py").read_text())
    path = tmp_path / "work.yaml"
    path.write_text(WORKLOAD)
    return path


def command(workload: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "spacetime", "serve", str(workload), "--device", "cpu", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPACETIME_GATE": str(workload.parent)},
    )


@contextmanager
def running(workload: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its HTTP port."""
    process = command(workload, *ANY, "--json", *options)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, int(json.loads(line)["http"].rsplit(":", 1)[1])
    finally:
        process.kill()
        process.communicate()


def post(port: int, model: str, *values: float) -> http.client.HTTPConnection:
    """A connection on which a request was sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    one = {"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": values}
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [one]}))
    return connection


def until(process: subprocess.Popen[str], event: str) -> None:
    """Reads the journal up to an event. Other lines are PyTorch's, of the models it exports."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == event:
            return
    pytest.fail(f"the journal ended without {event}")


def test_accepted_requests_finish_and_new_ones_are_refused_after_sigterm(workload: Path) -> None:
    with running(workload, "--log-requests") as (process, port):
        assert post(port, "a", 1, 2, 3).getresponse().status == 200
        os.mkfifo(workload.parent / "held")
        held = post(port, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()  # blocks until the model holds its lane
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        other.request("GET", "/v2/health/ready")
        assert other.getresponse().read() == b""
        process.send_signal(signal.SIGTERM)
        until(process, "stopping")
        other.request("POST", "/v2/models/a/infer", "{}")
        refused = other.getresponse()
        assert (refused.status, bool(refused.read())) in {(400, True), (503, True)}
        status = None
        while status != 503:  # the signal has reached the loop by now or in a moment
            other.request("GET", "/v2/health/ready")
            answer = other.getresponse()
            answer.read()
            status = answer.status
        assert answer.getheader("retry-after")
        with open(workload.parent / "open", "w"):
            pass
        assert held.getresponse().status == 200
        assert process.wait(60) == 0
        until(process, "stopped")


def test_a_second_signal_stops_at_once(workload: Path) -> None:
    with running(workload) as (process, port):
        os.mkfifo(workload.parent / "held")
        held = post(port, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()
        process.send_signal(signal.SIGTERM)
        until(process, "stopping")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        with pytest.raises(ConnectionError):
            held.getresponse()


def refused(workload: Path, *options: str) -> str:
    process = command(workload, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err


def test_bad_input_is_one_line_and_status_2(workload: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says = refused(workload, "--http-port", str(port))
        expected = "free on 127.0.0.1 (another --http-port, or 0 for any)"
        assert f"http_port must be {expected}, got {port}" in says
    (tmp_path / "tokens").write_text("short\n")
    assert "token_file must be a file with a token of at least 16" in (
        refused(workload, "--token-file", str(tmp_path / "tokens"))
    )
    assert "tls_key must be given" in refused(workload, "--tls-cert", str(workload))
    workload.write_text(WORKLOAD.replace("served_models:affine", "nowhere:affine"))
    assert "tenant a: model: nowhere:affine: there is no module nowhere" in refused(workload, *ANY)
