"""One command under a limit: whatever it does, it ends, and nothing that it started outlives it.

Only the standard library is needed: a step may find everything else broken.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 3.0  # between asking a command to end and ending it
_LOOK_S = 0.05
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended: `code` None where it was ended, at its limit or because of a stop."""

    code: int | None
    seconds: float
    last: str  # what it said last: a line, or nothing


def adopt_orphans() -> None:
    """Makes this process the parent of what a command leaves behind, so that it can be ended."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def run(
    command: Sequence[str],
    *,
    folder: Path,
    limit_s: float,
    environment: Mapping[str, str],
    log: Path,
    stop: Callable[[], bool],
    look: Callable[[], None],
) -> CommandEnd:
    """Runs it in `folder` and a session of its own, with both outputs appended to `log`.

    stop: whether it is to end early; look: called while it runs. Both are asked often.
    """
    begin = time.monotonic()
    with log.open("ab") as said:
        at = said.tell()
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env=dict(environment), start_new_session=True,
            )  # fmt: skip
        except OSError as why:
            return CommandEnd(127, 0.0, f"{command[0]} does not start: {why.strerror}")
        code = _awaited(process, begin + limit_s, stop, look)
        if code is None:
            _end_group(process)
        _end_orphans()
    return CommandEnd(code, time.monotonic() - begin, last_line(log, at))


def last_line(log: Path, at: int = 0) -> str:
    """Returns the last line with a letter or digit in it, from the byte `at` on."""
    with log.open("rb") as text:
        text.seek(max(at, text.seek(0, os.SEEK_END) - 20_000))
        lines = text.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if any(map(str.isalnum, line))), "")


def _awaited(
    process: subprocess.Popen[bytes],
    end: float,
    stop: Callable[[], bool],
    look: Callable[[], None],
) -> int | None:
    """Returns a process's status, or None once it has to be ended."""
    while not stop() and time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_S)
        look()
    return process.poll()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Asks its session to end, then ends it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            return


def _end_orphans() -> None:
    """Ends the children that are left: only those that were adopted, for one command runs."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE_S
        for child in _children():
            with suppress(ProcessLookupError):
                os.kill(child, number)
        while _children() and time.monotonic() < end:
            with suppress(ChildProcessError):
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(_LOOK_S)


def _children() -> list[int]:
    pids: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            pids += map(int, path.read_text(encoding="ascii").split())
    return pids
