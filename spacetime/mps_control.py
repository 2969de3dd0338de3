"""What is said to an MPS control daemon, and what its answers mean.

The program reads commands, one a line, and answers in plain text; it returns 0 also where it could
not do what was asked, so texts are judged too. Source: NVIDIA, "Multi-Process Service", control
commands of the daemon (legacy, version 2).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spacetime.errors import MpsError

PROGRAM = "nvidia-cuda-mps-control"
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
PARTITION = "CUDA_MPS_SM_PARTITION"
MEMORY = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
_REFUSED = re.compile(r"CUDA_ERROR|\b(error|fail(ed|ure)?|invalid|cannot|unknown)\b", re.I)


@dataclass(frozen=True, slots=True)
class Control:
    """The control program of the daemon at `pipe`. Any thread may ask.

    environment: variables the program gets besides this process's own.
    """

    pipe: Path
    log: Path
    program: str = PROGRAM
    timeout_s: float = 10.0
    environment: Mapping[str, str] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What leads a process, or this program, to the daemon."""
        return {PIPE: str(self.pipe), LOG: str(self.log)}

    @property
    def surroundings(self) -> dict[str, str]:
        """What the program itself runs with."""
        return {**os.environ, **(self.environment or {}), **self.variables}

    def ask(self, command: str) -> str:
        """The answer to one command. Raises MpsError saying what went wrong and what helps."""
        if "\n" in command:
            raise MpsError(f"MPS {command!r:.40}: is more than one command")
        done = self._run(command)
        said = " ".join((done.stdout + " " + done.stderr).split())
        if done.returncode or _REFUSED.search(said):
            why = said or f"it ended with status {done.returncode}"
            raise MpsError(f"MPS {command}: {why[:200]} (daemon at {self.pipe})")
        return done.stdout.strip()

    @property
    def answers(self) -> bool:
        """Whether a daemon is there: the question NVIDIA's device plugin asks too."""
        try:
            self.default_percentage()
        except MpsError:
            return False
        return True

    def default_percentage(self) -> float:
        """Of the threads of the device, what a new client may use at most."""
        return self._number("get_default_active_thread_percentage")

    def set_default_percentage(self, percent: float) -> None:
        """For clients that come later. Raises MpsError, also where it is not taken over."""
        self.ask(f"set_default_active_thread_percentage {_percent(percent)}")
        self._holds("the default percentage", self.default_percentage(), percent)

    def percentage(self, server: int) -> float:
        """What a new client of one server may use at most."""
        return self._number(f"get_active_thread_percentage {server}")

    def set_percentage(self, server: int, percent: float) -> None:
        """For later clients of one server. Raises MpsError, also where it is not taken over."""
        self.ask(f"set_active_thread_percentage {server} {_percent(percent)}")
        self._holds(f"the percentage of server {server}", self.percentage(server), percent)

    def servers(self) -> list[int]:
        """Process numbers of its servers: one for each user that has clients."""
        return self._numbers("get_server_list")

    def clients(self, server: int) -> list[int]:
        """Process numbers of a server's clients."""
        return self._numbers(f"get_client_list {server}")

    def status(self, server: int) -> str:
        """`ACTIVE`, `INITIALIZING`, or `FAULT`: then every client must end before new ones come."""
        return self.ask(f"get_server_status {server}").upper()

    def start_server(self, uid: int) -> None:
        """Starts the server of one user before its first client."""
        self.ask(f"start_server -uid {uid}")

    def terminate_client(self, server: int, client: int) -> None:
        """Ends a client's work in order; its process may be killed afterwards, never before."""
        self.ask(f"terminate_client {server} {client}")

    def add_partition(self, gpu: str, chunks: int) -> str:
        """A static partition of SMs; the name clients set. Needs a daemon started `static`."""
        said = self.ask(f"sm_partition add {gpu} {chunks}")
        if (made := re.search(r"Partition (\S+/\S+) created", said)) is None:
            raise MpsError(f"MPS sm_partition: created no partition: {said[:200]}")
        return made[1]

    def remove_partition(self, name: str) -> None:
        """Takes a static partition away that no client uses."""
        self.ask(f"sm_partition rm {name}")

    def _number(self, command: str) -> float:
        said = self.ask(command)
        try:
            return float(said.split()[-1])
        except (ValueError, IndexError):
            raise MpsError(f"MPS {command}: expected a number, got {said!r:.60}") from None

    def _numbers(self, command: str) -> list[int]:
        said = self.ask(command)
        if not all(word.isdecimal() for word in said.split()):
            raise MpsError(f"MPS {command}: expected process numbers, got {said!r:.60}")
        return [int(word) for word in said.split()]

    @staticmethod
    def _holds(what: str, got: float, asked: float) -> None:
        if abs(got - asked) > 0.05:
            raise MpsError(f"MPS: {what} is {got:g} after {asked:g} was asked for")

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.program], input=f"{command}\n", capture_output=True, text=True, check=False,
                timeout=self.timeout_s, env=self.surroundings,
            )  # fmt: skip
        except FileNotFoundError:
            raise MpsError(
                f"MPS: {self.program} is not installed; it comes with NVIDIA's driver"
            ) from None
        except PermissionError:
            raise MpsError(f"MPS: {self.program} may not be run by this user") from None
        except subprocess.TimeoutExpired:
            raise MpsError(
                f"MPS {command}: no answer in {self.timeout_s:g} s; the daemon at {self.pipe} hangs"
            ) from None


def _percent(percent: float) -> str:
    if not 0 < percent <= 100:
        raise MpsError(f"MPS: a percentage is above 0 and at most 100, got {percent:g}")
    return f"{percent:g}"
