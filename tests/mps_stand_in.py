"""A stand-in for the control program of MPS: the verbs and answers of NVIDIA's documentation.

With `-f` it is the daemon; without arguments it sends the lines of its input to the daemon of
CUDA_MPS_PIPE_DIRECTORY. STAND_IN says how it fails: `hang` (takes commands and answers nothing),
`deaf` (the daemon starts and never listens), `no-static`, `stubborn` (a client's work never ends),
`fault` (the server is in FAULT), `deny` (another user's daemon), `ignore` (percentages are not
taken over). `_join SERVER PID` stands for a client that connects.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

FAULT = os.environ.get("STAND_IN", "")
PIPE = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/nowhere"))
SMS, CHUNK = 132, 8


class Daemon:
    def __init__(self, *, static: bool) -> None:
        self.static = static
        self.default = 100.0
        self.servers: dict[int, dict[int, float]] = {}  # clients and their percentage
        self.percent: dict[int, float] = {}
        self.partitions: dict[str, int] = {}
        self.made = 0

    def obey(self, line: str) -> str:
        verb, *words = line.split()
        if verb.startswith("get_default"):
            return f"{self.default:.1f}"
        if verb == "set_default_active_thread_percentage":
            if FAULT != "ignore":
                self.default = float(words[0])
            return f"{self.default:.1f}"
        if verb == "start_server":
            server = 4000 + len(self.servers)
            self.servers[server], self.percent[server] = {}, self.default
            return ""
        if verb == "get_server_list":
            return "\n".join(map(str, self.servers))
        if verb == "sm_partition":
            return self.partition(words)
        return self.of_server(verb, words)

    def partition(self, words: list[str]) -> str:
        if not self.static:
            return "Failed: static partitioning is not enabled"
        if words[0] == "rm":
            return "" if self.partitions.pop(words[1], None) else "Failed: no such partition"
        if sum(self.partitions.values()) + int(words[2]) > SMS // CHUNK:
            return "Failed: not enough free chunks"
        self.made += 1
        name = f"{words[1]}/{self.made}"
        self.partitions[name] = int(words[2])
        return f"Partition {name} created"

    def of_server(self, verb: str, words: list[str]) -> str:
        if not words or int(words[0]) not in self.servers:
            return f"Server {words[0]} not found: invalid" if words else f"Unknown command {verb}"
        server = int(words[0])
        clients = self.servers[server]
        if verb == "set_active_thread_percentage":
            self.percent[server] = float(words[1])
        told = {
            "get_server_status": "FAULT" if FAULT == "fault" else "ACTIVE",
            "get_client_list": "\n".join(map(str, clients)),
            "get_active_thread_percentage": f"{self.percent[server]:.1f}",
            "set_active_thread_percentage": f"{self.percent[server]:.1f}",
        }
        return told[verb] if verb in told else self.of_client(verb, clients, words[1:])

    def of_client(self, verb: str, clients: dict[int, float], words: list[str]) -> str:
        if verb == "_join":
            clients[int(words[0])] = self.default
        elif verb != "terminate_client":
            return f"Unknown command {verb}"
        elif int(words[0]) not in clients:
            return "Failed: no such client"
        elif FAULT != "stubborn":
            del clients[int(words[0])]
        return ""

    def serve(self) -> None:
        place = PIPE / "control"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place))
            listening.listen()
            while True:
                asking, _ = listening.accept()
                with asking, asking.makefile("rw") as lines:
                    for line in lines:
                        if FAULT == "hang":
                            threading.Event().wait()
                        if line.startswith("quit"):
                            place.unlink()
                            return
                        lines.write(self.obey(line) + "\n\0")
                        lines.flush()


def ask() -> int:
    with socket.socket(socket.AF_UNIX) as control:
        try:
            if FAULT == "deny":
                raise PermissionError
            control.connect(str(PIPE / "control"))
        except OSError:
            print("Cannot find MPS control daemon process")
            return 1
        for line in sys.stdin:
            control.sendall(line.encode())
            said = b""
            while not said.endswith(b"\0") and (more := control.recv(4096)):
                said += more
            print(said.rstrip(b"\0").decode().strip())
    return 0


def main(arguments: list[str]) -> int:
    if not arguments:
        return ask()
    if "-S" in arguments and FAULT == "no-static":
        print("Unrecognized option -S")
        return 1
    if (PIPE / "control").exists():
        print("An instance of this daemon is already running")
        return 1
    if FAULT == "deaf":
        threading.Event().wait()
    Daemon(static="-S" in arguments).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
