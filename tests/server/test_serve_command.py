"""`spacetime serve` as a process: addresses, answers, refusals in one line, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest
from process import ANY, HERE, Served, refused, running, send

ONE = "rate_rps: 1, example_inputs: [{shape: [1, 3], datatype: FP32}]"
WORKLOAD = f"""
tenants:
  - {{name: a, model: "served_models:affine", slo_ms: 10000, {ONE}}}
  - {{name: gate, model: "served_models:file_gate", slo_ms: 60000, {ONE}}}
"""


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    (tmp_path / "served_models.py").write_text((HERE / "served_models.py").read_text())
    path = tmp_path / "work.yaml"
    path.write_text(WORKLOAD)
    return path


def post(served: Served, model: str, *values: float) -> http.client.HTTPConnection:
    """A connection on which a request was sent."""
    connection = served.connection()
    send(connection, model, *values)
    return connection


def test_accepted_requests_finish_and_new_ones_are_refused_after_sigterm(workload: Path) -> None:
    with running(workload, "--log-requests") as served:
        process = served.process
        assert post(served, "a", 1, 2, 3).getresponse().status == 200
        os.mkfifo(workload.parent / "held")
        held = post(served, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()  # blocks until the model holds its lane
        other = served.connection()
        other.request("GET", "/v2/health/ready")
        assert other.getresponse().read() == b""
        process.send_signal(signal.SIGTERM)
        served.until("stopping")
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
        served.until("stopped")


def test_a_second_signal_stops_at_once(workload: Path) -> None:
    with running(workload) as served:
        process = served.process
        os.mkfifo(workload.parent / "held")
        held = post(served, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()
        process.send_signal(signal.SIGTERM)
        served.until("stopping")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        with pytest.raises(ConnectionError):
            held.getresponse()


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
