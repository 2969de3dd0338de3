"""`spacetime serve` as a process of its own: started, asked, read, refused. Not a test module."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
ANY = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def work_file(folder: Path, text: str) -> Path:
    """A workload of that text, with the models it may name beside it."""
    (folder / "served_models.py").write_text((HERE / "served_models.py").read_text())
    path = folder / "work.yaml"
    path.write_text(text)
    return path


@dataclass(frozen=True, slots=True)
class Served:
    """A server's process and where it listens."""

    process: subprocess.Popen[str]
    http_port: int
    grpc_port: int
    metrics_url: str

    def connection(self) -> http.client.HTTPConnection:
        """A new connection to its HTTP port."""
        return connected(self.http_port)

    def metrics(self) -> dict[tuple[str, str], float]:
        """Values by name and the labels' values, without those that are the same for all."""
        with urllib.request.urlopen(self.metrics_url) as answer:
            text = answer.read().decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for named, labels, value, *_ in family.samples:
                name = named.removesuffix("_total") if named.startswith("nv_") else named
                of = (v for k, v in labels.items() if k not in {"version", "kind", "policy"})
                found[name, " ".join(of)] = value
        return found

    def journal(self) -> Iterator[dict[str, Any]]:
        """What it says, up to its end. Other lines are PyTorch's, of the models it exports."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                yield json.loads(line)

    def until(self, event: str) -> dict[str, Any]:
        """Reads the journal up to an event."""
        for line in self.journal():
            if line["event"] == event:
                return line
        pytest.fail(f"the journal ended without {event}")


# A shell that starts jobs behind itself leaves SIGINT ignored; a terminal does not.
MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from spacetime.cli.root import main; main()"
)


def command(workload: Path, *options: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve", str(workload), "--device", "cpu", *options],
        text=True,
        env={**os.environ, "SPACETIME_GATE": str(workload.parent)},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
    )


@contextmanager
def running(
    workload: Path, *options: str, ports: Sequence[str] = ANY, **streams: Any
) -> Iterator[Served]:
    """A server that answers, on ports that are free."""
    process = command(workload, *ports, "--json", *options, **streams)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told = json.loads(line)
        http_port, grpc_port = (int(told[name].rsplit(":", 1)[1]) for name in ("http", "grpc"))
        yield Served(process, http_port, grpc_port, told["metrics"])
    finally:
        process.kill()
        process.communicate()


def connected(port: int) -> http.client.HTTPConnection:
    """A connection for several requests."""
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def send(
    connection: http.client.HTTPConnection, model: str, *values: float, **parameters: Any
) -> None:
    """Sends a request for one row."""
    one = {"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": values}
    body = {"inputs": [one], "parameters": parameters}
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))


def told(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    """Status and answer: the first output's data, or what the error says."""
    answer = connection.getresponse()
    body = json.loads(answer.read() or b"{}")
    return answer.status, body["outputs"][0]["data"] if "outputs" in body else body.get("error")


def refused(workload: Path, *options: str) -> str:
    """The one line with which it ends at once, with status 2."""
    process = command(workload, *options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    return err
