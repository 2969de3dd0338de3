"""A stand-in for nvidia-cuda-mps-control, as a program, to test what drives MPS.

Of protocol 2 it says what driver 550's program says, word for word (tests/driver compares them), of
static partitions and protocol 3 what NVIDIA's guide shows; refusals that neither shows are ours.
With `-f` it is the daemon; without arguments it sends the lines of its input to the daemon of
CUDA_MPS_PIPE_DIRECTORY, and so it does with options it does not know. STAND_IN says how it fails,
with commas between: `hang` (takes commands and answers nothing), `deaf` (the daemon starts and
never listens), `old` (driver 550: no static partitions, no protocol 3), `no-device` (servers end at
once), `stubborn` (a client's work never ends), `fault` (a server with clients is in FAULT), `deny`
(another user's daemon), `ignore` (percentages are not taken over), `stays` (partitions are never
taken away). `_join SERVER PID` stands for a client that connects.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

FAULTS = os.environ.get("STAND_IN", "").split(",")
PIPE = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/nowhere"))
SMS, CHUNK = 132, 8
MODULES = ("server", "namespace", "client", "sm-partition")
PARTITIONS = "GPU Partition free used free used clients\n chunk chunk SM SM"


class Daemon:
    """Protocol 2."""

    def __init__(self, *, static: bool) -> None:
        self.static = static
        self.default = 100.0
        self.servers: dict[int, dict[int, float]] = {}  # clients and their percentage
        self.percent: dict[int, float] = {}
        self.partitions: dict[str, int] = {}
        self.made = 0

    def obey(self, line: str) -> str:
        verb, *words = line.split() or [""]
        if verb.startswith("get_default"):
            return f"{self.default:.1f}"
        if verb == "set_default_active_thread_percentage":
            if "ignore" not in FAULTS and 0 < float(words[0]) <= 100:  # else only the log says why
                self.default = float(words[0])
            return f"{self.default:.1f}"
        if verb == "start_server":
            return self.start_server()
        if verb == "get_server_list":
            return "\n".join(map(str, self.servers))
        if verb in {"sm_partition", "lspart"} and "old" not in FAULTS:
            return self.partition(words) if words else self.table()
        return self.of_server(verb, words)

    def start_server(self) -> str:
        server = 4000 + len(self.servers)
        if "no-device" in FAULTS:
            print("Failed to start : no CUDA-capable device is detected")
            print(f"Server {server} exited with status 1", flush=True)
        else:
            self.servers[server], self.percent[server] = {}, self.default
        return ""

    def partition(self, words: list[str]) -> str:
        verb, gpu, what = words
        if not self.static:
            return "Failed: static partitioning is not enabled"
        if verb == "rm":
            kept = "stays" in FAULTS or self.partitions.pop(f"{gpu}/{what}", None) is None
            return "Failed: no such partition" if kept and "stays" not in FAULTS else ""
        if sum(self.partitions.values()) + int(what) > SMS // CHUNK:
            return "Failed: not enough free chunks"
        self.made += 1
        name = f"{gpu}/Dx{self.made}A/AAAAAAAA"
        self.partitions[name] = int(what)
        return f"Partition {name} created"

    def table(self) -> str:
        used = sum(self.partitions.values())
        free = SMS // CHUNK - used
        rows = [f"GPU-1 - {free} {used} {free * CHUNK} {used * CHUNK} -"]
        for name, chunks in self.partitions.items():
            gpu, _, identity = name.partition("/")
            rows.append(f"{gpu} {identity} - {chunks} - {chunks * CHUNK} -")
        return "\n".join([PARTITIONS, *rows])

    def of_server(self, verb: str, words: list[str]) -> str:
        if verb not in VERBS:
            return f'Unknown command "{verb}"'
        if not words and verb == "get_server_status":
            return "A server PID is required"
        number = int(words[0]) if words and words[0].isdecimal() else 0
        if number not in self.servers:
            lost = f"Server {number} not found"
            return f"{lost}\n{lost}!\n1" if verb == "terminate_client" else lost
        clients = self.servers[number]
        if verb == "set_active_thread_percentage":
            self.percent[number] = float(words[1])
        told = {
            "get_server_status": "FAULT" if "fault" in FAULTS and clients else "ACTIVE",
            "get_client_list": "\n".join(map(str, clients)),
            "get_active_thread_percentage": f"{self.percent[number]:.1f}",
            "set_active_thread_percentage": f"{self.percent[number]:.1f}",
        }
        return told[verb] if verb in told else self.of_client(verb, clients, words[1:])

    def of_client(self, verb: str, clients: dict[int, float], words: list[str]) -> str:
        if verb == "_join":
            clients[int(words[0])] = self.default
        elif int(words[0]) not in clients:
            return f"Invalid process {words[0]}!\n1"
        elif "stubborn" not in FAULTS:
            del clients[int(words[0])]
        return "0"


VERBS = {
    "get_server_status", "get_client_list", "get_active_thread_percentage",
    "set_active_thread_percentage", "terminate_client", "_join",
}  # fmt: skip


class NamedDaemon(Daemon):
    """Protocol 3: a command is words with tabs between; a refusal begins with "Error"."""

    def __init__(self) -> None:
        super().__init__(static=True)
        self.names: dict[str, int] = {}

    def obey(self, line: str) -> str:
        module, verb, *words = [*line.strip().split("\t"), ""]
        if module == "_join":
            return self.of_server("_join", [verb, *words])
        options = dict(word[2:].split("=") for word in words if "=" in word)
        plain = [word for word in words if word and not word.startswith("--")]
        doing = getattr(self, f"{module}_{verb}".replace("-", "_"), None)
        return doing(plain, options) if doing else f"Error: unknown command {module} {verb}"

    def server_create(self, names: list[str], options: dict[str, str]) -> str:
        self.start_server()
        if self.servers:
            self.names[names[0] if names else f"uid_{options['uid']}"] = max(self.servers)
        return ""

    def server_list(self, names: list[str], options: dict[str, str]) -> str:
        rows = [f"{n},0,{pid},Ready,{PIPE}/{n},-,-" for n, pid in self.names.items()]
        head = "NAME,UID,PID,STATUS,PIPE-DIRECTORY,ALLOWED-DEVICES,CONTEXT-IDS"
        return "\n".join([head, *rows])

    def server_set(self, names: list[str], options: dict[str, str]) -> str:
        if "ignore" not in FAULTS:
            self.percent[self.names[names[0]]] = float(options["active-thread-percentage"])
        return ""

    def namespace_get(self, words: list[str], options: dict[str, str]) -> str:
        return f"{self.percent[self.names[words[1]]]:g}"

    def client_list(self, words: list[str], options: dict[str, str]) -> str:
        name = options["server"]
        rows = [f"{pid},{name},0,default,run --on-error=stop" for pid in self.clients(name)]
        return "\n".join(["PID,SERVER,DEVICE,NAMESPACE,CMD", *rows])

    def clients(self, name: str) -> dict[int, float]:
        return self.servers[self.names[name]]

    def client_terminate(self, words: list[str], options: dict[str, str]) -> str:
        for name in self.names:
            if "stubborn" not in FAULTS:
                self.clients(name).pop(int(words[0]), None)
        return ""

    def sm_partition_create(self, names: list[str], options: dict[str, str]) -> str:
        gpu = options["device"]
        said = self.partition(["add", gpu, options["chunks"]])
        if said.startswith("Failed"):
            return f"Error: {said}"
        made = said.split()[1]
        self.partitions[f"{made} {options['server']} {names[0]}"] = self.partitions.pop(made)
        count = int(options["chunks"]) * CHUNK
        return (
            f"SM partition '{names[0]}' created on device {gpu} (sm-count={count})\n"
            f"CUDA_MPS_SM_PARTITION={made}"
        )

    def sm_partition_list(self, names: list[str], options: dict[str, str]) -> str:
        head = "SERVER,DEVICE,NAME,CHUNKS,SM-COUNT,INCLUDE-REMAINDER,STATUS,VISIBLE-UUID"
        rows = []
        for key, chunks in self.partitions.items():
            made, server, name = key.split(" ")
            gpu, _, identity = made.partition("/")
            rows.append(f"{server},{gpu},{name},{chunks},{chunks * CHUNK},false,created,{identity}")
        return "\n".join([head, *rows, "uid_0,GPU-1,-,1,8,-,unallocated,-"])

    def sm_partition_delete(self, names: list[str], options: dict[str, str]) -> str:
        for key in list(self.partitions):
            if key.endswith(f" {options['server']} {names[0]}") and "stays" not in FAULTS:
                del self.partitions[key]
        return f"SM partition '{names[0]}' deleted from device {options['device']}"


def serve(daemon: Daemon) -> None:
    place = PIPE / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        while True:
            asking, _ = listening.accept()
            with asking, asking.makefile("rw") as lines:
                for line in lines:
                    if "hang" in FAULTS:
                        threading.Event().wait()
                    if line.startswith(("quit", "-q")):
                        place.unlink()
                        return
                    lines.write(daemon.obey(line) + "\n\0")
                    lines.flush()


def ask(asked: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as control:
        try:
            if "deny" in FAULTS:
                raise PermissionError
            control.connect(str(PIPE / "control"))
        except OSError:
            print("Cannot find MPS control daemon process", file=sys.stderr)
            return 1
        status = 0
        for line in asked:
            control.sendall(line.encode())
            said = b""
            while not said.endswith(b"\0") and (more := control.recv(4096)):
                said += more
            print(text := said.rstrip(b"\0").decode().rstrip("\n"), end="\n" if text else "")
            status = 1 if text.startswith("Error") else status
    return status


def main(arguments: list[str]) -> int:
    known = {"-f"} if "old" in FAULTS else {"-f", "-S", "-p", "3"}
    if arguments and arguments[0] in {*MODULES, "-q", "_join"} and "old" not in FAULTS:
        return ask(["\t".join(arguments) + "\n"])
    if "-f" not in arguments or not known.issuperset(arguments):
        return ask(list(sys.stdin))
    if (PIPE / "control").exists():
        print("An instance of this daemon is already running", file=sys.stderr)
        return 1
    if "deaf" in FAULTS:
        threading.Event().wait()
    serve(NamedDaemon() if "3" in arguments else Daemon(static="-S" in arguments))
    return 1 if "old" in FAULTS else 0  # 550's ends with 1 although nothing went wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
