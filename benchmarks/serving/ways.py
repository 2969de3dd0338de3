"""Servers of the compared model, each a process: ours, Triton's, LitServe's, and their bounds."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from spacetime.benchmarks.driving.server_process import (
    Way,
    first_answer,
    free_port,
    process,
    triton_server,
)
from spacetime.benchmarks.serving.toy import BATCH_S, LARGEST_BATCH, WIDTH

DELAY_US = 500  # for which the others' batchers may wait; ours waits as its policy decides
ROW = [0.5] * WIDTH
_OIP = {"name": "input_0", "shape": [1, WIDTH], "datatype": "FP32", "data": ROW}
# Bytes out, as Triton's own clients ask.
_ANSWER = struct.pack(f"<{WIDTH}f", *(x + 1 for x in ROW))
_OIP_BODY = {"inputs": [_OIP], "parameters": {"binary_data_output": True}}


@contextmanager
def ours() -> Iterator[Way]:
    """Runs our server with one lane, as `spacetime serve` does."""
    with _announced("spacetime.benchmarks.serving.ours") as way:
        yield way


@contextmanager
def limit(batch_s: float) -> Iterator[Way]:
    """Runs no real server: the same answer always, after `batch_s`, as cheaply as can be."""
    with _announced("spacetime.benchmarks.serving.limit", str(batch_s), _ANSWER.hex()) as way:
        yield way


@contextmanager
def litserve() -> Iterator[Way]:
    """Runs LitServe with its dynamic batching and one worker."""
    port = free_port()
    command = [sys.executable, "-m", "spacetime.benchmarks.serving.litserve", str(port)]
    with process(command):
        way = Way(port, "/predict", json.dumps({"input": ROW}).encode(), b"1.5]}")
        first_answer(way)
        yield way


@contextmanager
def triton(wheel: Path, delay_us: int = DELAY_US) -> Iterator[Way]:
    """Runs Triton with its Python backend, one instance, and batching that waits `delay_us`."""
    with triton_server(wheel, partial(_repository, delay_us=delay_us)) as (_, port):
        way = _oip(port)
        first_answer(way)
        yield way


def has_litserve() -> bool:
    """Whether litserve is installed."""
    return find_spec("litserve") is not None


def _repository(repository: Path, *, delay_us: int) -> None:
    folder = repository / "toy"
    tensor = "data_type: TYPE_FP32 dims: [{width}]"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        f'name: "toy" backend: "python" max_batch_size: {LARGEST_BATCH}\n'
        f'input [{{ name: "input_0" {tensor.format(width=WIDTH)} }}]\n'
        f'output [{{ name: "output_0" {tensor.format(width=WIDTH)} }}]\n'
        f"dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"
        "instance_group [{ kind: KIND_CPU count: 1 }]\n"
    )
    (folder / "1" / "model.py").write_text(
        "import time\n"
        "import triton_python_backend_utils as pb\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        f"        time.sleep({BATCH_S})\n"
        "        rows = [pb.get_input_tensor_by_name(r, 'input_0').as_numpy() for r in requests]\n"
        "        return [pb.InferenceResponse([pb.Tensor('output_0', x + 1)]) for x in rows]\n"
    )


@contextmanager
def _announced(module: str, *arguments: str) -> Iterator[Way]:
    """Runs a module that prints its port; yields the way to ask it."""
    with process([sys.executable, "-m", module, *arguments], output=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} ended before it was ready")
        yield _oip(int(line))


def _oip(port: int) -> Way:
    return Way(port, "/v2/models/toy/infer", json.dumps(_OIP_BODY).encode(), _ANSWER)
