"""`spacetime serve` as a process under load over HTTP and gRPC, beside idle connections, told to
end: every accepted request is answered exactly once, new ones are refused, and it ends."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from process import Served, running, send, told, work_file
from test_tritonclient import row
from tritonclient.utils import InferenceServerException

WORKLOAD = """
tenants:
  - {name: a, model: "served_models:affine", slo_ms: 60000, rate_rps: 1, example_inputs: [IN]}
""".replace("IN", "{shape: [1, 3], datatype: FP32}")
# What reaches the library in its last instant, and so no line of the journal, it cancels itself.
REFUSED = {"StatusCode.UNAVAILABLE": "gone", "StatusCode.CANCELLED": "503"}
IDLE = 900  # of the 1000 connections that are allowed


class Caller(threading.Thread):
    """Asks until there is nobody to ask; `said` counts the answers by what they were."""

    def __init__(self, ask: Callable[[float], str]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self.said: Counter[str] = Counter()
        self.start()

    def run(self) -> None:
        while not self.said["gone"]:
            self.said[self._ask(float(self.said.total() % 1000))] += 1


def over_http(served: Served) -> Callable[[float], str]:
    connection = served.connection()

    def ask(value: float) -> str:
        try:
            send(connection, "a", value, value, value)
            status, data = told(connection)
        except (OSError, http.client.HTTPException):
            return "gone"
        return str(status) if status != 200 or data == [2 * value + 1] * 3 else f"wrong: {data}"

    return ask


def over_grpc(served: Served) -> Callable[[float], str]:
    triton = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{served.grpc_port}")

    def ask(value: float) -> str:
        try:
            answer = triton.infer("a", row("grpc", value, value, value)).as_numpy("output_0")
        except InferenceServerException as error:
            return REFUSED.get(error.status(), str(error))
        return "200" if np.all(answer == 2 * value + 1) else f"wrong: {answer}"

    return ask


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    return work_file(tmp_path, WORKLOAD)


def answered(path: Path) -> Counter[int]:
    """Statuses of the inference requests that the journal names."""
    found = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    return Counter(
        line["status"] for line in found if line["event"] == "request" and "model" in line
    )


def few_files() -> None:
    """As a system that allows few open files unless asked."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_it_ends_in_the_middle_of_everything(workload: Path) -> None:
    said = workload.parent / "journal"
    with said.open("w") as stream:
        asked = running(workload, "--log-requests", stderr=stream, preexec_fn=few_files)
        with asked as served:
            idle = [
                socket.create_connection(("127.0.0.1", served.http_port), 60) for _ in range(IDLE)
            ]
            callers = [Caller(way(served)) for way in (over_http, over_grpc) for _ in range(3)]
            while any(each.said["200"] < 50 for each in callers):
                assert all(each.is_alive() for each in callers)
            files = len(os.listdir(f"/proc/{served.process.pid}/fd"))
            served.process.terminate()
            assert served.process.wait(60) == 0
            for each in callers:
                each.join(60)
            for connection in idle:
                connection.close()
    assert files > IDLE
    total = Counter[str]()
    for each in callers:
        total += each.said
    assert set(total) <= {"200", "503", "gone"}
    assert total["gone"] == len(callers)
    assert answered(said)[200] == total["200"]  # neither one answer lost, nor one twice
    assert set(answered(said)) <= {200, 503}
