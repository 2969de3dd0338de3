"""`spacetime serve` as a process: addresses, answers, refusals in one line, and how it ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from process import ANY, Served, command, refused, running, send, told, work_file

from spacetime.cli.root import BAD_INPUT, cli
from spacetime.workload.workload import WorkloadError

ONE = "rate_rps: 1, example_inputs: [{shape: [1, 3], datatype: FP32}]"
WORKLOAD = f"""
tenants:
  - {{name: a, model: "served_models:affine", slo_ms: 10000, {ONE}}}
  - {{name: gate, model: "served_models:file_gate", slo_ms: 60000, {ONE}}}
"""


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    return work_file(tmp_path, WORKLOAD)


def post(served: Served, model: str, *values: float) -> http.client.HTTPConnection:
    """A connection on which a request was sent."""
    connection = served.connection()
    send(connection, model, *values)
    return connection


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_accepted_requests_finish_and_new_ones_are_refused_after_sigterm(
    workload: Path, isolation: str
) -> None:
    with running(workload, "--log-requests", "--isolation", isolation) as served:
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


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(workload: Path, first: signal.Signals) -> None:
    with running(workload) as served:
        process = served.process
        os.mkfifo(workload.parent / "held")
        held = post(served, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()
        process.send_signal(first)
        served.until("stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        with pytest.raises(ConnectionError):
            held.getresponse()


def test_bad_input_is_one_line_and_status_2(workload: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says = refused(workload, "--http-port", str(port))
    expected = "free on 127.0.0.1 (another --http-port, or 0 for any)"
    assert says == f"spacetime: http_port must be {expected}, got {port}: Address already in use\n"


PAIR = ("--tls-cert", "one.pem", "--tls-key", "two.key")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--grpc-port", "8000"], "grpc_port must be another port than http_port, got 8000"),
        (["--host", "8.8.8.8", *ANY], "host must be a name or address of this machine, got '8.8"),
        (["--host", "", *ANY], "host must be a name or address of this machine, got ''"),
        (["--token-file", "tokens", *ANY], "token_file must be a file with a token of at least 16"),
        (["--token-file", "none", *ANY], "token_file must be a file with a token"),
        (["--tls-cert", "one.pem", *ANY], "tls_key must be given with the other one, got nothing"),
        ([*PAIR, *ANY], "tls_cert must be a certificate with its key, as PEM, got one.pem and two"),
        (["--gpu", "1", *ANY], "--gpu: give --plan too"),
        (["--plan", "none.json", *ANY], "--plan: give --profiles too"),
        (["--queue-limit", "9999999999"], "Invalid value for '--queue-limit'"),
        (["--http-port", "-1"], "Invalid value for '--http-port'"),
        (["--body-limit", "nan"], "Invalid value for '--body-limit'"),
        (["--device", "tpu"], "device 'tpu': use 'cpu', 'cuda:0', 'fake:h200' or 'auto'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_are_wrong_are_named(
    workload: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    monkeypatch.chdir(workload.parent)
    Path("tokens").write_text("short\n")
    for name in ("one.pem", "two.key"):
        Path(name).write_text("no PEM")
    said = CliRunner().invoke(cli, ["serve", "work.yaml", "--device", "cpu", *options])
    assert isinstance(said.exception, (*BAD_INPUT, SystemExit))
    assert says in f"{said.output}{said.exception}"


def test_a_model_that_is_not_there_is_named(workload: Path) -> None:
    workload.write_text(WORKLOAD.replace("served_models:affine", "nowhere:affine"))
    with pytest.raises(WorkloadError, match="tenant a: model: nowhere:affine: there is no module"):
        cli.main(["serve", str(workload), "--device", "cpu", *ANY], standalone_mode=False)


def test_what_is_allowed_and_rarely_meant_is_said(
    workload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is missing, so that nothing is served after the ports are bound."""
    workload.write_text(WORKLOAD.replace("served_models:affine", "nowhere:affine"))
    tokens = workload.parent / "tokens"
    tokens.write_text("a-token-of-enough-characters\n")
    given = ["--token-file", str(tokens)]
    readable = f"spacetime: token_file {tokens} can be read by every user here; chmod o-r {tokens}"
    for mode, host, options, says in (
        (0o600, "0.0.0.0", [], ["spacetime: 0.0.0.0 may be public and no --token-file says who"]),
        (0o600, "0.0.0.0", given, []),
        (0o644, "127.0.0.2", given, [readable]),
        (0o600, "127.0.0.2", [], []),
    ):
        tokens.chmod(mode)
        with pytest.raises(WorkloadError):
            cli.main(
                ["serve", str(workload), "--device", "cpu", "--host", host, *options, *ANY],
                standalone_mode=False,
            )
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(says)
        assert all(line.startswith(start) for line, start in zip(said, says, strict=True))


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_it_ends_at_once_while_models_load(
    workload: Path, number: signal.Signals, status: int
) -> None:
    source = """
import os, threading
def slow():
    open(os.path.join(os.environ["SPACETIME_GATE"], "held"), "w").close()
    threading.Event().wait()
"""
    (workload.parent / "loads.py").write_text(source)
    workload.write_text(WORKLOAD.replace("served_models:affine", "loads:slow"))
    os.mkfifo(workload.parent / "held")
    process = command(workload, *ANY)
    (workload.parent / "held").read_text()  # blocks until the model loads
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert err.strip() == ("" if number == signal.SIGTERM else "spacetime: interrupted")


def test_a_full_disk_for_the_addresses_is_one_line(workload: Path) -> None:
    with open("/dev/full", "w") as full:
        process = command(workload, *ANY, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    said = "spacetime: output: No space left on device; make room, or write elsewhere"
    assert err.splitlines()[-1] == said
    assert "Traceback" not in err


def children(pid: int) -> list[int]:
    """The processes it started, such as those of its lanes."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_killed_server_leaves_nobody_and_the_next_has_its_ports_and_no_disk(
    workload: Path,
) -> None:
    with running(workload, "--isolation", "process") as served:
        os.mkfifo(workload.parent / "held")
        waiting = post(served, "gate", 101, 0, 0)
        (workload.parent / "held").read_text()
        lanes = children(served.process.pid)
        assert lanes
        served.process.kill()
        with pytest.raises(ConnectionError):
            waiting.getresponse()
        ports = ("--http-port", str(served.http_port), "--grpc-port", str(served.grpc_port))
        metrics = ("--metrics-port", served.metrics_url.rsplit(":", 1)[1].partition("/")[0])
        served.process.wait(60)
        while any(Path(f"/proc/{lane}").exists() for lane in lanes):
            pass  # each sees that its server has gone; ends with the test's own timeout, if never
    with open("/dev/full", "w") as full:  # the disk of its journal: it stops nothing
        again = running(workload, "--log-requests", ports=(*ports, *metrics), stderr=full)
        with again as other:
            assert other.http_port == served.http_port
            for _ in range(20):
                assert told(post(other, "a", 1, 2, 3)) == (200, [3, 5, 7])
            other.process.terminate()
            assert other.process.wait(60) == 0
