"""What is said to an MPS control daemon of protocol 3, which names servers and partitions.

Commands are arguments of the program: `server list`. Lists are asked for with a header and read by
its words; a program that knows no protocol 3 prints nothing and returns 0, which is an error here.
Source: NVIDIA, "Multi-Process Service", MPS v3 interface. Not seen on a device.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess

from spacetime.errors import MpsError
from spacetime.isolation.mps_control import Control, MpsPartition

Row = dict[str, str]


class ControlV3(Control):
    """The control program of a daemon started with protocol 3. Any thread may ask.

    Servers are named: a user's own is `uid_N`. Static partitions need no mode of the daemon.
    """

    protocol = 3

    def greet(self) -> None:
        """Raises MpsError where no daemon of protocol 3 answers."""
        self._servers()

    def default_percentage(self) -> float:
        """Raises MpsError: protocol 3 has percentages of servers only."""
        raise MpsError("MPS: protocol 3 has no default percentage; set a server's")

    def set_default_percentage(self, percent: float) -> None:
        """Raises MpsError: protocol 3 has percentages of servers only."""
        self.default_percentage()

    def percentage(self, server: int) -> float:
        """What a new client of one server may use at most."""
        name = self._named(server)["name"]
        said = self.ask(f"namespace get default {name} active-thread-percentage")
        try:
            return float(said.rstrip("%"))
        except ValueError:
            raise MpsError(f"MPS namespace get: expected a number, got {said!r:.60}") from None

    def servers(self) -> list[int]:
        """Process numbers of its servers that run."""
        return [int(row["pid"]) for row in self._servers() if row["pid"].isdecimal()]

    def clients(self, server: int) -> list[int]:
        """Process numbers of a server's clients."""
        name = self._named(server)["name"]
        rows = self._rows(f"client list --server={name}", "pid")
        return [int(row["pid"]) for row in rows]

    def status(self, server: int) -> str:
        """The server's status in the daemon's word, in capitals: `READY`."""
        return self._named(server)["status"].upper()

    def terminate_client(self, server: int, client: int) -> None:
        """Ends a client's work in order; its process may be killed afterwards, never before."""
        if client not in self.clients(server):
            raise MpsError(f"MPS client terminate: server {server} has no client {client}")
        self.ask(f"client terminate {client}")

    def add_partition(self, gpu: str, chunks: int) -> str:
        """A static partition of SMs for clients of this user; the name clients set.

        Starts the user's server where there is none: only then has a partition a name.
        """
        server = self._own_server()
        taken = {row["name"] for row in self._partition_rows()}
        name = next(f"st_{i}" for i in range(len(taken) + 1) if f"st_{i}" not in taken)
        said = self.ask(
            f"sm-partition create {name} --server={server} --device={gpu} --chunks={chunks}"
        )
        if (made := re.search(r"CUDA_MPS_SM_PARTITION=(\S+/\S+)", said)) is None:
            raise MpsError(f"MPS sm-partition: created no partition: {said[:200]}")
        return made[1]

    def remove_partition(self, name: str) -> None:
        """Takes a static partition away that no client uses. Raises MpsError where it stays."""
        gpu, _, identity = name.partition("/")
        rows = {row["visible-uuid"]: row for row in self._partition_rows()}
        if (row := rows.get(identity)) is None:
            raise MpsError(f"MPS sm-partition: {name} is not there")
        self.ask(f"sm-partition delete {row['name']} --server={row['server']} --device={gpu}")
        if any(row["visible-uuid"] == identity for row in self._partition_rows()):
            raise MpsError(f"MPS sm-partition: {name} is still there")

    def partitions(self) -> list[MpsPartition]:
        """The static partitions of running servers."""
        return [
            MpsPartition(
                f"{row['device']}/{row['visible-uuid']}", int(row["chunks"]), int(row["sm-count"])
            )
            for row in self._partition_rows()
            if row["status"] == "created"
        ]

    def quit(self) -> None:
        """Ends the daemon and its servers."""
        self.ask("-q")

    def _serves(self, uid: int) -> bool:
        rows = (row for row in self._servers() if row["name"] == f"uid_{uid}")
        unready = re.compile(
            "init|start|pend|fault|fail|stop", re.I
        )  # the guide names "Ready" alone
        return any(row["pid"].isdecimal() and not unready.match(row["status"]) for row in rows)

    def _start(self, uid: int) -> None:
        if f"uid_{uid}" not in {row["name"] for row in self._servers()}:
            self.ask(f"server create --uid={uid}")

    def _set_percentage(self, server: int, percent: str) -> None:
        self.ask(f"server set {self._named(server)['name']} --active-thread-percentage={percent}")

    def _own_server(self) -> str:
        self.start_server(os.getuid())
        return f"uid_{os.getuid()}"

    def _servers(self) -> list[Row]:
        return self._rows("server list", "name", "pid", "status")

    def _named(self, server: int) -> Row:
        found = next((row for row in self._servers() if row["pid"] == str(server)), None)
        if found is None:
            raise MpsError(f"MPS: server {server} not found (daemon at {self.pipe})")
        return found

    def _partition_rows(self) -> list[Row]:
        rows = self._rows(
            "sm-partition list --all",
            "server", "device", "name", "chunks", "sm-count", "status", "visible-uuid",
        )  # fmt: skip
        return [row for row in rows if row["status"] != "unallocated"]

    def _rows(self, command: str, *columns: str) -> list[Row]:
        """The rows of a list by its header's words; not judged, for it holds clients' commands."""
        done = self._run(f"{command} --format=csv")
        lines = [line for line in csv.reader(done.stdout.splitlines()) if line]
        if done.returncode or not lines:
            why = " ".join((done.stdout + " " + done.stderr).split()) or "it said nothing"
            raise MpsError(f"MPS {command}: {why[:200]}; is a daemon of protocol 3 at {self.pipe}?")
        head = [word.strip().lower() for word in lines[0]]
        if missing := [word for word in columns if word not in head]:
            raise MpsError(f"MPS {command}: no column {missing[0]!r} in {','.join(head)[:200]}")
        # A command with a comma of its own may add words to the last column, never take one away.
        if short := next((line for line in lines[1:] if len(line) < len(head)), None):
            has = f"row {','.join(short)!r:.60} has {len(short)} of {len(head)} columns"
            raise MpsError(f"MPS {command}: {has}")
        return [dict(zip(head, line, strict=False)) for line in lines[1:]]

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return self._program(command.split(), "", command)
