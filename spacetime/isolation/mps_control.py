"""The commands of an MPS control daemon of protocol 2, and what its answers mean.

The control program reads commands, one a line, and answers in plain text. It returns 0 also where
it could not do what was asked; so its texts are judged, and what was set is read again. Sources:
NVIDIA, "Multi-Process Service", legacy MPS v2; the program of driver 550 (make driver). `mps_v3.py`
has the commands of protocol 3.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from spacetime.errors import MpsError

PROGRAM = "nvidia-cuda-mps-control"
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
PARTITION = "CUDA_MPS_SM_PARTITION"
MEMORY = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
STATES = ("ACTIVE", "INITIALIZING", "FAULT")
NO_STATIC = "static partitions of SMs came with CUDA 13.1 (driver 590); use percentages, or update"
_REFUSED = re.compile(
    r"CUDA_ERROR|\b(error|fail(ed|ure)?|invalid|cannot|unknown|not found|required|insufficient)\b",
    re.I,
)
_ENDED = re.compile(r"Failed to start .*|Server \d+ exited with status -?\d+")
_LOOK_S = 0.05  # between two looks at whether a server is ready


@dataclass(frozen=True, slots=True)
class MpsPartition:
    """A static partition of SMs."""

    name: str  # what clients set in CUDA_MPS_SM_PARTITION
    chunks: int  # its size in the smallest parts that a device divides into
    sms: int
    used: bool | None = None  # whether a client uses it; None where the daemon does not say


@dataclass(frozen=True, slots=True)
class Control:
    """The control program of the daemon whose pipes lie in the directory `pipe`.

    log: the daemon's directory of logs. timeout_s: for each answer. environment: variables the
    program gets besides this process's own. Any thread may ask; every method raises MpsError where
    the daemon does not answer or refuses.
    """

    pipe: Path
    log: Path
    program: str = PROGRAM
    timeout_s: float = 10.0
    environment: Mapping[str, str] | None = None
    protocol: ClassVar[int] = 2

    @property
    def variables(self) -> dict[str, str]:
        """The variables that lead a client, or the control program, to the daemon."""
        return {PIPE: str(self.pipe), LOG: str(self.log)}

    @property
    def surroundings(self) -> dict[str, str]:
        """The whole environment of the control program.

        The protocol is named by a variable, which takes precedence over the program's option.
        """
        chosen = {**self.variables, "CUDA_MPS_PROTOCOL_VERSION": str(self.protocol)}
        return {**os.environ, **(self.environment or {}), **chosen}

    def ask(self, command: str) -> str:
        """Returns the answer to one command. Raises MpsError saying what went wrong."""
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
        """Whether a daemon of this protocol answers."""
        try:
            self.greet()
        except MpsError:
            return False
        return True

    def greet(self) -> None:
        """Raises MpsError where no daemon answers the question NVIDIA's device plugin asks too."""
        self.default_percentage()

    def default_percentage(self) -> float:
        """Returns the most percent of a device's threads that a new client may use."""
        return self._number("get_default_active_thread_percentage")

    def set_default_percentage(self, percent: float) -> None:
        """Sets it for clients that come later. Raises MpsError, also where it did not change."""
        self.ask(f"set_default_active_thread_percentage {_percent(percent)}")
        self._holds("the default percentage", self.default_percentage(), percent)

    def percentage(self, server: int) -> float:
        """Returns the most percent of a device's threads that a new client of a server may use."""
        return self._number(f"get_active_thread_percentage {server}")

    def set_percentage(self, server: int, percent: float) -> None:
        """Sets it for later clients of a server. Raises MpsError, also where it did not change."""
        self._set_percentage(server, _percent(percent))
        self._holds(f"the percentage of server {server}", self.percentage(server), percent)

    def servers(self) -> list[int]:
        """Returns the process numbers of the daemon's servers, one for each user with clients."""
        return self._numbers("get_server_list")

    def clients(self, server: int) -> list[int]:
        """Returns the process numbers of a server's clients."""
        return self._numbers(f"get_client_list {server}")

    def status(self, server: int) -> str:
        """Returns a server's status: `ACTIVE`, `INITIALIZING` or `FAULT`.

        In FAULT every client must end before new ones may come.
        """
        said = self.ask(f"get_server_status {server}").upper()
        if said not in STATES:
            raise MpsError(f"MPS get_server_status {server}: {said!r:.60} is no status of a server")
        return said

    def start_server(self, uid: int, *, timeout_s: float = 60.0) -> None:
        """Starts the server of a user, by number, before its first client; waits until it is ready.

        The daemon's answers say nothing of a server that could not start, but its log does. Raises
        MpsError, also where none is ready after `timeout_s`.
        """
        before = len(_ENDED.findall(self._log()))
        self._start(uid)
        end = time.monotonic() + timeout_s
        while not self._serves(uid):
            said = _ENDED.findall(self._log())[before:]
            if said and said[-1].startswith("Server"):
                raise MpsError(f"MPS start_server -uid {uid}: {'; '.join(said)}")
            if time.monotonic() >= end:
                raise MpsError(f"MPS start_server -uid {uid}: none is ready after {timeout_s:g} s")
            time.sleep(_LOOK_S)

    def terminate_client(self, server: int, client: int) -> None:
        """Ends a client's work properly; its process may be killed afterwards, never before."""
        said = self.ask(f"terminate_client {server} {client}")
        if said not in {"", "0"}:  # the result of the driver, as a number
            raise MpsError(f"MPS terminate_client {server} {client}: it failed with {said:.60}")

    def add_partition(self, gpu: str, chunks: int) -> str:
        """Makes a static partition of a device, by UUID; returns the name that clients set.

        The daemon must have been started with static partitions. Raises MpsError.
        """
        said = self._ask_static(f"sm_partition add {gpu} {chunks}")
        # "Partition NAME created", or NAME alone; its second part is base64, which has slashes.
        if (name := re.search(r"(?:GPU|MIG)-[^\s/]+/\S+", said)) is None:
            raise MpsError(f"MPS sm_partition: created no partition: {said[:200]}")
        return name[0]

    def remove_partition(self, name: str) -> None:
        """Removes a static partition that no client uses. Raises MpsError where it stays."""
        gpu, _, identity = name.partition("/")
        said = self._ask_static(f"sm_partition rm {gpu} {identity}")
        if any(_identity(left.name) == identity for left in self.partitions()):
            raise MpsError(f"MPS sm_partition: {name} is still there: {said[:200]}")

    def partitions(self) -> list[MpsPartition]:
        """Returns the static partitions that exist; a name may have its device's UUID shortened."""
        return listed_partitions(self._ask_static("lspart"))

    def quit(self) -> None:
        """Ends the daemon, which gives its servers 5 s."""
        self.ask("quit -t 5")

    def _set_percentage(self, server: int, percent: str) -> None:
        self.ask(f"set_active_thread_percentage {server} {percent}")

    def _serves(self, uid: int) -> bool:
        return any(map(self._ready, self.servers()))  # one user's at a time

    def _start(self, uid: int) -> None:
        self.ask(f"start_server -uid {uid}")

    def _ready(self, server: int) -> bool:
        """Whether a server takes clients.

        It is listed as soon as its process exists, and may end before it is ready.
        """
        try:
            return self.status(server) == "ACTIVE"  # one that fails to start is in FAULT first
        except MpsError as why:
            if "Unknown command" not in str(why):  # it ended
                return False
            log = self._log()  # driver 535 tells nobody else
            return not log or f"NEW SERVER {server}: Ready" in log

    def _log(self) -> str:
        """Returns what the daemon wrote into its logs; empty where they cannot be read."""
        try:
            return "\n".join(path.read_text(errors="replace") for path in self.log.glob("*.log"))
        except OSError:
            return ""

    def _ask_static(self, command: str) -> str:
        try:
            return self.ask(command)
        except MpsError as why:
            if "Unknown command" in str(why):
                raise MpsError(f"MPS {command}: {NO_STATIC}") from None
            raise

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
    def _holds(what: str, percent: float, asked_percent: float) -> None:
        if abs(percent - asked_percent) > 0.05:
            raise MpsError(f"MPS: {what} is {percent:g} after {asked_percent:g} was asked for")

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return self._program((), f"{command}\n", command)

    def _program(
        self, arguments: Sequence[str], said: str, command: str
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self.program, *arguments], input=said, capture_output=True, text=True,
                check=False, timeout=self.timeout_s, env=self.surroundings,
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


def _identity(name: str) -> str:
    return name.partition("/")[2]


def listed_partitions(table: str) -> list[MpsPartition]:
    """Returns the partitions of the table that the command `lspart` prints. Raises MpsError.

    A row with nothing but numbers after the UUID is a device's and no partition. A value that does
    not apply is a dash in NVIDIA's guide and a blank elsewhere.
    """
    partitions = []
    for line in table.splitlines():
        gpu, *rest = [word for word in line.split() if word != "-"] or [""]
        if not gpu.startswith(("GPU-", "MIG-")) or all(word.isdecimal() for word in rest):
            continue
        try:
            identity, chunks, sms, *clients = rest
            used = clients[0] == "Yes" if clients else False
            partitions.append(MpsPartition(f"{gpu}/{identity}", int(chunks), int(sms), used))
        except ValueError:
            raise MpsError(f"MPS lspart: expected a partition, got {line!r:.80}") from None
    return partitions


def _percent(percent: float) -> str:
    if not 0 < percent <= 100:
        raise MpsError(f"MPS: a percentage is above 0 and at most 100, got {percent:g}")
    return f"{percent:g}"
