"""The examples of `examples/in_*` as servers in processes of their own: to measure, to test."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import spacetime
from spacetime.benchmarks.driving.server_process import free_port
from spacetime.errors import InvalidInput

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# By folder: what has to be installed, and the name people know.
LIBRARIES = {"in_fastapi": "fastapi", "in_litserve": "litserve", "in_ray_serve": "ray"}
NAMES = {"in_fastapi": "FastAPI", "in_litserve": "LitServe", "in_ray_serve": "Ray Serve"}
READY_S = 120.0
STOP_S = 60.0
ORPHANS_S = 10.0


@dataclass(frozen=True, slots=True)
class RunningExample:
    """A server that answers on `port`; what it prints is kept in `log`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


def missing(example: str) -> str | None:
    """Returns what `example` needs and lacks here, as a line; None where it can run."""
    if not (EXAMPLES / example).is_dir():
        return f"{example}: it is in a checkout's examples/, not in this installation"
    library = LIBRARIES[example]
    return None if find_spec(library) else f"{example}: pip install {library}"


def four_models() -> ModuleType:
    """Returns the module with the models that the examples serve. Raises InvalidInput."""
    path = EXAMPLES / "four_models.py"
    spec = importlib.util.spec_from_file_location("four_models", path)
    if spec is None or spec.loader is None or not path.exists():
        raise InvalidInput("-", "examples", "a checkout with examples/four_models.py", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post(port: int, question: dict[str, Any]) -> Any:
    """Returns the answer to one question. Raises OSError, HTTPException or RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/predict", json.dumps(question), headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(f"the server answered {answer.status}: {text[:200]!r}")
    return json.loads(text)


@contextmanager
def serving(example: str, way: str) -> Iterator[RunningExample]:
    """Yields an example's `way` (before, after) once it answers, and stops it afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        running = RunningExample(_started(f"{example}.{way}", port := free_port(), log), port, log)
        try:
            _wait_until_ready(running)
            yield running
        finally:
            stop(running.process)


def stop(process: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    """Asks for an end: the exit status, and the command lines of what it left running (ended now).

    A status of -9 means that it had to be killed.
    """
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    end = time.monotonic() + ORPHANS_S
    while (left := _session_of(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return process.returncode, [*left.values()]


def _started(module: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    root = str(Path(spacetime.__file__).resolve().parents[1])
    paths = [str(EXAMPLES), root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # Ray keeps a token in the home folder and its sessions in a folder of its own.
    own = {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(log.parent)}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(port)], cwd=EXAMPLES, env=os.environ | own,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _wait_until_ready(running: RunningExample) -> None:
    end = time.monotonic() + READY_S
    question = {"tenant": 0, "pixels": [0.0] * 64}
    while time.monotonic() < end and running.process.poll() is None:
        with suppress(OSError, RuntimeError, http.client.HTTPException):
            post(running.port, question)
            return
        time.sleep(0.1)
    said = running.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the server did not answer on port {running.port}; it said:\n{said}")


def _session_of(leader: int) -> dict[int, str]:
    """Returns the command lines, by process number, of the session `leader` began, without it."""
    commands = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if command and os.getsid(pid := int(folder.name)) == leader != pid:
                commands[pid] = command
    return commands
