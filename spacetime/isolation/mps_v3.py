"""The commands of an MPS control daemon of protocol 3, which gives servers and partitions names.

Commands are arguments of the program, such as `server list`. Lists are asked for with a header, and
read by its words. A program that lacks protocol 3 prints nothing and returns 0: an error here.
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
    """The control program of a daemon that was started with protocol 3. Any thread may ask.

    Servers have names: `uid_N` is that of user N. Static partitions need no option of the daemon.
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
        """Returns the most percent of a device's threads that a new client of a server may use."""
        name = self._named(server)["name"]
        said = self.ask(f"namespace get default {name} active-thread-percentage")
        try:
            return float(said.rstrip("%"))
        except ValueError:
            raise MpsError(f"MPS namespace get: expected a number, got {said!r:.60}") from None

    def servers(self) -> list[int]:
        """Returns the process numbers of the daemon's servers that run."""
        return [int(row["pid"]) for row in self._servers() if row["pid"].isdecimal()]

    def clients(self, server: int) -> list[int]:
        """Returns the process numbers of a server's clients."""
        name = self._named(server)["name"]
        rows = self._rows(f"client list --server={name}", "pid")
        return [int(row["pid"]) for row in rows]

    def status(self, server: int) -> str:
        """Returns a server's status in the daemon's own word, in capitals, such as `READY`."""
        return self._named(server)["status"].upper()

    def terminate_client(self, server: int, client: int) -> None:
        """Ends a client's work properly; its process may be killed afterwards, never before."""
        if client not in self.clients(server):
            raise MpsError(f"MPS client terminate: server {server} has no client {client}")
        self.ask(f"client terminate {client}")

    def add_partition(self, gpu: str, chunks: int) -> str:
        """Makes a static partition for clients of this user; returns the name that clients set.

        gpu: the device's UUID. The user's server is started where there is none, for a partition
        belongs to a server. Raises MpsError.
        """
        server = self._own_server()
        taken = {row["name"] for row in self._partition_rows()}
        name = next(f"st_{i}" for i in range(len(taken) + 1) if f"st_{i}" not in taken)
        said = self.ask(
            f"sm-partition create {name} --server={server} --device={gpu} --chunks={chunks}"
        )
        if (variable := re.search(r"CUDA_MPS_SM_PARTITION=(\S+/\S+)", said)) is None:
            raise MpsError(f"MPS sm-partition: created no partition: {said[:200]}")
        return variable[1]

    def remove_partition(self, name: str) -> None:
        """Removes a static partition that no client uses. Raises MpsError where it stays."""
        gpu, _, identity = name.partition("/")
        rows = {row["visible-uuid"]: row for row in self._partition_rows()}
        if (row := rows.get(identity)) is None:
            raise MpsError(f"MPS sm-partition: {name} is not there")
        self.ask(f"sm-partition delete {row['name']} --server={row['server']} --device={gpu}")
        if any(row["visible-uuid"] == identity for row in self._partition_rows()):
            raise MpsError(f"MPS sm-partition: {name} is still there")

    def partitions(self) -> list[MpsPartition]:
        """Returns the static partitions of the servers that run."""
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
        # By what it is not: the guide names the status "Ready" alone, and no other.
        unready = re.compile("init|start|pend|fault|fail|stop", re.I)
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
        named = next((row for row in self._servers() if row["pid"] == str(server)), None)
        if named is None:
            raise MpsError(f"MPS: server {server} not found (daemon at {self.pipe})")
        return named

    def _partition_rows(self) -> list[Row]:
        rows = self._rows(
            "sm-partition list --all",
            "server", "device", "name", "chunks", "sm-count", "status", "visible-uuid",
        )  # fmt: skip
        return [row for row in rows if row["status"] != "unallocated"]

    def _rows(self, command: str, *columns: str) -> list[Row]:
        """Returns the rows of a list by its header's words. Raises MpsError.

        Its text is not searched for words of refusal, for it holds clients' own command lines.
        """
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
