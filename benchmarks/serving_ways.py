"""Servers of the compared model, each a process: ours, Triton's and LitServe's.

Triton is the server inside the PyPI wheel nvidia-pytriton, installed or only unpacked.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from spacetime.benchmarks.serving_toy import BATCH_S, LARGEST_BATCH, WIDTH

READY_S = 60.0
DELAY_US = 500  # for which the others' batchers may wait; ours waits as its policy decides
ROW = [0.5] * WIDTH
_OIP = {"name": "input_0", "shape": [1, WIDTH], "datatype": "FP32", "data": ROW}
# Bytes out, as Triton's own clients ask.
_ANSWER = struct.pack(f"<{WIDTH}f", *(x + 1 for x in ROW))
_OIP_BODY = {"inputs": [_OIP], "parameters": {"binary_data_output": True}}


@dataclass(frozen=True, slots=True)
class Way:
    """Where a server answers, and what it is asked."""

    port: int
    path: str
    body: bytes
    answer: bytes  # what a right answer ends with


@contextmanager
def ours() -> Iterator[Way]:
    """`spacetime serve`'s server with one lane."""
    command = [sys.executable, "-m", "spacetime.benchmarks.serving_toy"]
    with _process(command, output=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("our own server ended before it was ready")
        yield _oip(int(line))


@contextmanager
def litserve() -> Iterator[Way]:
    """LitServe with its dynamic batching and one worker."""
    port = _free_port()
    command = [sys.executable, "-m", "spacetime.benchmarks.serving_litserve", str(port)]
    with _process(command):
        way = Way(port, "/predict", json.dumps({"input": ROW}).encode(), b"1.5]}")
        _wait_until_ready(way)
        yield way


@contextmanager
def triton(wheel: Path) -> Iterator[Way]:
    """Triton with its Python backend, dynamic batching and one instance."""
    home = wheel / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with TemporaryDirectory() as folder:
        backend, repository = Path(folder, "backends"), Path(folder, "models")
        shutil.copytree(home / "backends" / "python", backend / "python")
        stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backend / "python")
        _model(repository / "toy")
        ports = [_free_port() for _ in range(3)]
        for file in ((backend / "python") / stub.name, home / "bin" / "tritonserver"):
            file.chmod(file.stat().st_mode | 0o100)
        command = [
            str(home / "bin" / "tritonserver"),
            f"--model-repository={repository}", f"--backend-directory={backend}",
            f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", f"--metrics-port={ports[2]}",
            "--allow-gpu-metrics=false",
        ]  # fmt: skip
        with _process(command, env=_interpreter(wheel)):
            way = _oip(ports[0])
            _wait_until_ready(way)
            yield way


def triton_wheel() -> Path | None:
    """Where nvidia-pytriton is installed."""
    spec = find_spec("pytriton")
    return Path(spec.origin).parent.parent if spec is not None and spec.origin else None


def has_litserve() -> bool:
    """Whether litserve is installed."""
    return find_spec("litserve") is not None


def _interpreter(wheel: Path) -> dict[str, str]:
    """What lets the backend's stub find this Python's library, and numpy where the wheel lies.

    The stub takes the environment of the first `python` of the path. That of Triton 2.51 was built
    for numpy 1: of numpy 2 it sends tensors without bytes.
    """
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(wheel / "nvidia_pytriton.libs")]
    return {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PYTHONHOME": sys.base_prefix,
        "PATH": f"{wheel.parents[2] / 'bin'}:{os.environ['PATH']}",
    }


def _model(folder: Path) -> None:
    tensor = "data_type: TYPE_FP32 dims: [{width}]"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        f'name: "toy" backend: "python" max_batch_size: {LARGEST_BATCH}\n'
        f'input [{{ name: "input_0" {tensor.format(width=WIDTH)} }}]\n'
        f'output [{{ name: "output_0" {tensor.format(width=WIDTH)} }}]\n'
        f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}\n"
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


def _oip(port: int) -> Way:
    return Way(port, "/v2/models/toy/infer", json.dumps(_OIP_BODY).encode(), _ANSWER)


@contextmanager
def _process(
    command: Sequence[str], *, output: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE if output else quiet, stderr=quiet,
        env={**os.environ, **(env or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # workers would outlive their server
        try:
            process.wait(timeout=READY_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(way: Way) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=READY_S)
            connection.request("POST", way.path, way.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            found = response.read()
            if response.status == http.HTTPStatus.OK:
                if found.endswith(way.answer):
                    return
                raise RuntimeError(f"a wrong answer on port {way.port}: {found[-200:]!r}")
        time.sleep(0.1)
    raise RuntimeError(f"no answer on port {way.port} within {READY_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
