"""Servers as processes of their own: started, asked until they answer, ended.

Triton is the server inside the PyPI wheel nvidia-pytriton, installed or only unpacked.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from spacetime.errors import InvalidInput

READY_S = 120.0
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Way:
    """Where a server answers, which request it gets, and how a right answer ends."""

    port: int
    path: str
    body: bytes
    answer: bytes = b""  # what a right answer ends with
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_TYPE)

    def wire(self) -> bytes:
        """Returns the request's bytes."""
        heads = {"Host": "localhost", **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {text}" for name, text in heads.items())]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@contextmanager
def process(
    command: Sequence[str], *, output: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command as the leader of a session of its own, all of which ends with the block.

    output: whether what it prints can be read.
    """
    quiet = subprocess.DEVNULL
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE if output else quiet, stderr=quiet,
        env={**os.environ, **(env or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)  # workers would outlive their server
        try:
            running.wait(timeout=READY_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def first_answer(way: Way) -> bytes:
    """Asks until the server answers; returns the answer's body.

    Raises RuntimeError for a wrong answer, and where none comes within READY_S.
    """
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=READY_S)
            connection.request("POST", way.path, way.body, dict(way.headers))
            response = connection.getresponse()
            answer = response.read()
            if response.status == http.HTTPStatus.OK:
                if answer.endswith(way.answer):
                    return answer
                raise RuntimeError(f"a wrong answer on port {way.port}: {answer[-200:]!r}")
        time.sleep(0.1)
    raise RuntimeError(f"no answer on port {way.port} within {READY_S:.0f} s")


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def triton_wheel(named: str) -> Path | None:
    """Returns the folder of nvidia-pytriton: the one named, else the installed one, if any.

    Raises InvalidInput where the folder named is none.
    """
    if named:
        if not (Path(named) / "pytriton" / "tritonserver").is_dir():
            raise InvalidInput("-", "triton", "the folder of an unpacked nvidia-pytriton", named)
        return Path(named)
    spec = find_spec("pytriton")
    return Path(spec.origin).parent.parent if spec is not None and spec.origin else None


@contextmanager
def triton_server(
    wheel: Path, fill: Callable[[Path], None]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Starts Triton; yields its process and its HTTP port, which does not answer yet.

    fill: makes the repository of models in a folder. The only backend is the one for Python.
    """
    home = wheel / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with TemporaryDirectory() as folder:
        backend, repository = Path(folder, "backends"), Path(folder, "models")
        shutil.copytree(home / "backends" / "python", backend / "python")
        stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, backend / "python")
        fill(repository)
        ports = [free_port() for _ in range(3)]
        for file in ((backend / "python") / stub.name, home / "bin" / "tritonserver"):
            file.chmod(file.stat().st_mode | 0o100)
        command = [
            str(home / "bin" / "tritonserver"),
            f"--model-repository={repository}", f"--backend-directory={backend}",
            f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", f"--metrics-port={ports[2]}",
            "--allow-gpu-metrics=false",
        ]  # fmt: skip
        with process(command, env=_interpreter(wheel)) as running:
            yield running, ports[0]


def _interpreter(wheel: Path) -> dict[str, str]:
    """Returns the variables by which the backend's stub finds this Python, and the wheel's numpy.

    The stub takes the environment of the first `python` of the path. That of Triton 2.51 was built
    for numpy 1: of numpy 2 it sends tensors without bytes.
    """
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(wheel / "nvidia_pytriton.libs")]
    return {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PYTHONHOME": sys.base_prefix,
        "PATH": f"{wheel.parents[2] / 'bin'}:{os.environ['PATH']}",
    }
