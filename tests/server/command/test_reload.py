"""`load` of a model that is loaded: its weights file is read again while it is served."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from serving import ROW, serving, tenant
from test_http import ask

from spacetime.server.serve import Server

LOAD = "/v2/repository/models/level/load"
INPUT = {"name": "input_0", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}


def write(path: Path, level: float, **more: torch.Tensor) -> None:
    """Every weight is `level`: an answer to ones is 3 * level + level."""
    whole = path.with_suffix(".new")
    weights = {"weight": torch.full((2, 3), level), "bias": torch.full((2,), level)}
    save_file(weights | more, whole)
    whole.replace(path)  # at once, as whoever publishes weights does


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "level.safetensors"
    write(path, 1)
    return path


@pytest.fixture
def server(weights: Path) -> Iterator[Server]:
    with serving(tenant("level", *ROW, weights=str(weights)), tenant("affine")) as running:
        yield running


def level(server: Server) -> float:
    status, body, _ = ask(server, "POST", "/v2/models/level/infer", {"inputs": [INPUT]})
    assert status == 200, body
    first, second = body["outputs"][0]["data"]
    assert first == second
    return float(first) / 4


def test_load_of_a_loaded_model_reads_its_file_again(server: Server, weights: Path) -> None:
    assert level(server) == 1
    write(weights, 2)
    assert level(server) == 1
    assert ask(server, "POST", LOAD)[0] == 200
    assert level(server) == 2


def test_load_by_grpc_does_the_same(server: Server, weights: Path) -> None:
    client = pytest.importorskip("tritonclient.grpc")
    write(weights, 3)
    with client.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as triton:
        triton.load_model("level")
    assert level(server) == 3


def test_a_file_that_does_not_fit_leaves_the_old_weights(server: Server, weights: Path) -> None:
    wrongs = [
        lambda: weights.write_bytes(b"nothing of the kind"),
        lambda: write(weights, 5, more=torch.zeros(1)),
        weights.unlink,
    ]
    for wrong in wrongs:
        wrong()
        status, body, _ = ask(server, "POST", LOAD)
        assert status >= 400
        assert "level" in body["error"]
        assert "\n" not in body["error"]
        assert level(server) == 1
        assert ask(server, "GET", "/v2/models/level/ready")[0] == 200
    write(weights, 6)
    assert ask(server, "POST", LOAD)[0] == 200
    assert level(server) == 6


def test_a_model_without_a_file_is_what_it_was(server: Server) -> None:
    assert ask(server, "POST", "/v2/repository/models/affine/load")[0] == 200
    body = {"inputs": [INPUT]}
    status, answer, _ = ask(server, "POST", "/v2/models/affine/infer", body)
    assert (status, answer["outputs"][0]["data"]) == (200, [3, 3, 3])


def test_no_request_is_lost_or_mixed_while_weights_are_read_again(
    server: Server, weights: Path
) -> None:
    begun, in_force, stop, wrong = [1.0], [1.0], threading.Event(), list[str]()

    def call() -> None:
        try:
            while not stop.is_set():
                least, found = in_force[0], level(server)
                if not least <= found <= begun[0]:
                    wrong.append(f"{found} from {least} to {begun[0]}")
        except BaseException as error:
            wrong.append(repr(error))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for number in map(float, range(2, 8)):
        begun[0] = number
        write(weights, number)
        assert ask(server, "POST", LOAD)[0] == 200
        in_force[0] = number
    stop.set()
    for caller in callers:
        caller.join()
    assert not wrong
    assert level(server) == 7
