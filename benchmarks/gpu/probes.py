"""Questions that only a device answers, in as few processes as can be: what one breaks stays there.

python -m spacetime.benchmarks.gpu.probes [--out FILE] [--quick] [--only NAME ...]
Processes import meanwhile and take the device in turn. One whose question fails or hangs is ended,
and a fresh one answers the rest. The file is rewritten after each answer.
Exit status 0 when every probe answered, 3 where there is no device, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.benchmarks.gpu.names import QUESTIONS

FORMAT = "spacetime.probes/1"
NO_DEVICE = 3  # exit status of a process of probes, and of the whole, where there is no device
TIMEOUT_S = 20.0  # of one question
IMPORT_S = 60.0  # until a process is ready to be asked
# Read by the driver when a process first uses the device; others share a process.
ENVIRONMENTS = {
    "queues_8": {"CUDA_DEVICE_MAX_CONNECTIONS": "8"},
    "queues_32": {"CUDA_DEVICE_MAX_CONNECTIONS": "32"},
}
AGAIN = "sm_ids_again"  # in another process: are the SMs of a group the same?
Answer = dict[str, Any]  # status ok, failed, timeout or no device; seconds; answer or error


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks every question, or answers some where called with --answer."""
    parser = argparse.ArgumentParser(prog="python -m spacetime.benchmarks.gpu.probes")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="may be repeated")
    parser.add_argument("--answer", action="append", choices=QUESTIONS, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.answer:
        return _answer_all(asked.answer, quick=asked.quick)
    answers: dict[str, Answer] = {}

    def tell(name: str, told: Answer) -> None:
        answers[name] = told
        print(f"{name:<12} {told['status']:<10} {told['seconds']:5.1f} s  {told.get('error', '')}")
        if asked.out is not None:
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            record = {"format": FORMAT, "quick": asked.quick, "probes": answers}
            replace_text(asked.out, json.dumps(record, indent=1) + "\n")

    ask_all(asked.only or QUESTIONS, tell, quick=asked.quick)
    return status_of(answers)


def status_of(answers: Mapping[str, Mapping[str, Any]]) -> int:
    """Returns the exit status that tells of these answers."""
    statuses = {answer["status"] for answer in answers.values()}
    if "no device" in statuses:
        return NO_DEVICE
    return 0 if statuses == {"ok"} else 1


def ask_all(
    names: Sequence[str],
    tell: Callable[[str, Answer], None],
    *,
    quick: bool,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Asks in turn, and tells each answer at once; where there is no device, only the first."""
    own = [name for name in names if name in ENVIRONMENTS or name == AGAIN]
    shared = [name for name in names if name not in own]
    groups = [group for group in (shared, *([name] for name in own)) if group]
    waiting = [_ProbeProcess.started(group, quick=quick) for group in groups]
    try:
        while waiting:
            left = waiting[0].ask(tell, timeout_s)
            if left is None:  # no device: the others would say the same
                return
            waiting[0].end()
            waiting[0:1] = [_ProbeProcess.started(left, quick=quick)] if left else []
    finally:
        for asked in waiting:
            asked.end()


@dataclass(slots=True)
class _ProbeProcess:
    """A process that answers some questions, once it is told to go."""

    names: list[str]
    process: subprocess.Popen[bytes]

    @classmethod
    def started(cls, names: list[str], *, quick: bool) -> _ProbeProcess:
        """Returns a process that imports now."""
        command = [sys.executable, "-m", "spacetime.benchmarks.gpu.probes", *["--quick"] * quick]
        command += [word for name in names for word in ("--answer", name)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0, env=os.environ | ENVIRONMENTS.get(names[0], {}),
        )  # fmt: skip
        return cls(names, process)

    def ask(self, tell: Callable[[str, Answer], None], timeout_s: float) -> list[str] | None:
        """Tells its answers; returns what is left to a fresh process, None without a device."""
        begin = time.monotonic()
        ready = self._line(IMPORT_S if timeout_s == TIMEOUT_S else timeout_s)
        if ready and self.process.stdin is not None:
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
            begin = time.monotonic()
        for number, name in enumerate(self.names):
            told = self._line(timeout_s) if ready is not None else None
            seconds = time.monotonic() - begin
            if told is None:
                tell(name, {"status": "timeout", "seconds": seconds, "error": f"{seconds:.0f} s"})
            elif not told:
                status, why = self._why()
                tell(name, {"status": status, "seconds": seconds, "error": why})
                if status == "no device":
                    return None
            else:
                tell(name, {"status": "ok", "seconds": seconds, "answer": json.loads(told)})
                begin = time.monotonic()
                continue
            return self.names[number + 1 :]
        return []

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.communicate()

    def _line(self, timeout_s: float) -> bytes | None:
        """Returns the next line; empty where the process ended, None where none comes in time."""
        stdout = self.process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout_s)[0]:
            return None
        return stdout.readline()  # unbuffered, so that select sees every line

    def _why(self) -> tuple[str, str]:
        _, said = self.process.communicate()
        code = self.process.returncode
        reason = (said.decode(errors="replace").strip().splitlines() or [f"exit status {code}"])[-1]
        return "no device" if code == NO_DEVICE else "failed", reason


def _answer_all(names: Sequence[str], *, quick: bool) -> int:
    """Answers in a process of its own, a line for each; ends at the first that fails."""
    from spacetime.benchmarks.gpu import questions  # noqa: PLC0415 - torch, in this process only

    print("imported", flush=True)
    sys.stdin.readline()
    try:
        opened = questions.opened()
    except OSError as error:  # libcuda.so.1 is not here
        print(f"no driver: {error}", file=sys.stderr)
        return NO_DEVICE
    except RuntimeError as error:  # the driver is here and finds nothing to drive
        print(f"no device: {error}", file=sys.stderr)
        return NO_DEVICE
    for name in names:
        print(json.dumps(questions.ANSWERS[name](opened, quick=quick)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
