"""An MPS daemon as a context manager: started here and ended here, or attached to and left alone.

Clients are processes: a partition of kind mps is the environment that its process is started with.
A percentage is a cap and no reservation; a static partition (of a daemon with `-S`) is both. CUDA
says nothing in a client that finds no daemon and runs without MPS, so a process that is a client
reads what it was granted.
Sources: NVIDIA, "Multi-Process Service"; MIG User Guide (MPS inside an instance).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spacetime.errors import MpsError, UnsupportedError
from spacetime.isolation.mps_control import (
    MEMORY,
    NO_STATIC,
    PARTITION,
    PERCENTAGE,
    PROGRAM,
    Control,
)
from spacetime.isolation.mps_v3 import ControlV3

_STARTING_S = 20.0  # how long a daemon may take until it answers
_LOOK_S = 0.05  # between two looks at what a daemon or a client does
# Where a daemon's pipes lie by default: of newer drivers as root, and of all others.
_USUAL = (Path("/run/nvidia-mps"), Path(tempfile.gettempdir(), "nvidia-mps"))
_NO_V3 = "protocol 3 came with later drivers (615 has it); use protocol 2, or update"


@contextmanager
def daemon(
    *,
    program: str = PROGRAM,
    visible: str | None = None,
    static: bool = False,
    protocol: int = 2,
    timeout_s: float = 10.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Control]:
    """Starts a daemon with directories of its own and ends it with the block; yields its control.

    program: the control program.
    visible: the UUID of the device or MIG instance that the daemon serves; None is all it sees.
    static: whether it makes static partitions of SMs, which protocol 3 does in any case.
    protocol: 2 or 3.
    timeout_s: for each answer.
    environment: variables of the daemon besides this process's own.
    Other daemons are not touched. Raises MpsError where the program is missing, ends, does not
    answer or lacks what is asked.
    """
    kind = _kind(protocol)
    with tempfile.TemporaryDirectory(prefix="st-mps-") as folder:
        pipe, log = Path(folder) / "pipe", Path(folder) / "log"
        pipe.mkdir(mode=0o700)
        log.mkdir()
        added = dict(environment or {})
        if visible is not None:
            added["CUDA_VISIBLE_DEVICES"] = visible
        control = kind(pipe, log, program, timeout_s, added)
        option, lacks = ("-S", NO_STATIC) if static else ("", "")
        if protocol == 3:
            option, lacks = "-p 3", _NO_V3
        # In the foreground, so that it is this process's child: nothing else is ever signalled.
        process = _started(control, option)
        try:
            _await_answer(control, process, lacks and f"{program} knows no {option}: {lacks}")
            yield control
        finally:
            _ended(control, process)


def attached(
    pipe: Path | None = None, *, program: str = PROGRAM, protocol: int = 2, timeout_s: float = 10.0
) -> Control:
    """Returns the control of a daemon that runs already; it is never ended from here.

    pipe: its directory of pipes; None takes the one that the environment names, or the usual one.
    protocol: the daemon's, 2 or 3. Raises MpsError where no daemon of that protocol answers.
    """
    said = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    used = (place for place in _USUAL if (place / "control").exists())
    place = pipe or (Path(said) if said else next(used, _USUAL[-1]))
    log = Path(os.environ.get("CUDA_MPS_LOG_DIRECTORY", place))
    control = _kind(protocol)(place, log, program, timeout_s)
    control.greet()
    return control


def client_environment(
    control: Control,
    *,
    percent: float | None = None,
    partition: str | None = None,
    memory: str | None = None,
    visible: str | None = None,
) -> dict[str, str]:
    """Returns the variables a client process is started with, besides those of this process.

    percent: the most of the device's threads it may use, above 0 to 100.
    partition: the name of a static partition, instead.
    memory: limits of device memory, such as "0=20G".
    visible: the UUID of a device or MIG instance, for the daemon has numbers of its own.
    Raises MpsError naming what is wrong.
    """
    if (percent is None) == (partition is None):
        raise MpsError("MPS: a client has a percentage or a static partition, one of them")
    if percent is not None and not 0 < percent <= 100:
        raise MpsError(f"MPS: a percentage is above 0 and at most 100, got {percent:g}")
    if visible is not None and visible.isdecimal():
        raise MpsError("MPS: name devices by UUID; the daemon numbers them anew for its clients")
    variables = {
        PERCENTAGE: None if percent is None else f"{percent:g}", PARTITION: partition,
        MEMORY: memory, "CUDA_VISIBLE_DEVICES": visible,
    }  # fmt: skip
    return control.variables | {name: v for name, v in variables.items() if v is not None}


def granted_sms(
    environment: Mapping[str, str], *, most: int | None = None, library: str | None = None
) -> int:
    """Returns how many SMs a client with this environment has, as read by a process that is one.

    most: how many were asked for; more are an error. library: the driver's, None is libcuda. Raises
    MpsError where the process runs without MPS, which CUDA does silently, and UnsupportedError
    where there is no driver.
    """
    probe = [sys.executable, "-m", "spacetime.isolation.mps_probe"]
    command = [*probe, *([library] if library else [])]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip() or f"it ended with status {done.returncode}").splitlines()[-1]
        raise UnsupportedError(f"MPS: the process that reads what it was granted: {reason}")
    granted: dict[str, Any] = json.loads(done.stdout)
    if not granted["mps"]:
        raise MpsError("MPS: the process runs without MPS: it found no daemon")
    if most is not None and granted["sms"] > most:
        raise MpsError(f"MPS: the process has {granted['sms']} SMs, {most} were asked for")
    return int(granted["sms"])


def end_client(
    control: Control, process: subprocess.Popen[Any], *, timeout_s: float = 10.0
) -> None:
    """Ends a client process in the right order: its work first, through the daemon, then itself.

    Killing a client with work in flight leaves every other client's work undefined, so where the
    daemon does not end it, the process is left alive and MpsError is raised.
    """
    if process.poll() is None:
        for server in control.servers():
            if process.pid in control.clients(server):
                control.terminate_client(server, process.pid)
                _await_gone(control, server, process, timeout_s)
        process.kill()
    process.wait()


def terminate(control: Control, pid: int) -> None:
    """Ends the work of the client with that process number, as has to be done before it is killed.

    A process that is no client is no error.
    """
    for server in control.servers():
        if pid in control.clients(server):
            control.terminate_client(server, pid)


def _await_gone(
    control: Control, server: int, process: subprocess.Popen[Any], timeout_s: float
) -> None:
    """Returns when the process has ended, or the server has no such client. Raises MpsError."""
    end = time.monotonic() + timeout_s
    while process.poll() is None and process.pid in control.clients(server):
        if time.monotonic() >= end:
            raise MpsError(
                f"MPS: client {process.pid} has work in flight {timeout_s:g} s after "
                "terminate_client; it was not killed, for that would disturb the other clients"
            )
        time.sleep(_LOOK_S)


def _kind(protocol: int) -> type[Control]:
    if protocol not in {2, 3}:
        raise MpsError(f"MPS: protocol is 2 or 3, got {protocol!r:.20}")
    return ControlV3 if protocol == 3 else Control


def _started(control: Control, option: str) -> subprocess.Popen[bytes]:
    command = [control.program, "-f", *option.split()]
    try:
        with (control.log / "started.log").open("wb") as said:
            return subprocess.Popen(
                command, env=control.surroundings, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
    except FileNotFoundError:
        raise MpsError(
            f"MPS: {control.program} is not installed; it comes with NVIDIA's driver"
        ) from None
    except OSError as why:
        raise MpsError(f"MPS: {control.program} does not start: {why.strerror}") from None


def _await_answer(control: Control, process: subprocess.Popen[bytes], lacks: str) -> None:
    """Returns when the daemon answers. Raises MpsError where it ends or does not answer.

    lacks: what to say of a program that lacks the option it was started with. Such a program takes
    the option for a question to a daemon, and finds none.
    """
    end = time.monotonic() + min(_STARTING_S, 2 * control.timeout_s)
    while not control.answers:
        if process.poll() is not None:
            text = (control.log / "started.log").read_text(errors="replace").split()
            why = " ".join(text)[:200] or "it said nothing"
            if lacks and "Cannot find MPS control daemon process" in why:
                raise MpsError(f"MPS: {lacks}")
            raise MpsError(f"MPS: the daemon ended with status {process.returncode}: {why}")
        if time.monotonic() >= end:
            raise MpsError("MPS: the daemon runs and does not answer; it was ended")
        time.sleep(_LOOK_S)


def _ended(control: Control, process: subprocess.Popen[bytes]) -> None:
    """Ends the daemon. One that hangs is killed, which only a child of this process may be."""
    if process.poll() is None:
        with suppress(MpsError):
            control.quit()
        try:
            process.wait(control.timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
