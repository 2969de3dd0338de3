"""The servers of `bench goodput`, each with the same tenants: ours, Triton's and LitServe's."""

from __future__ import annotations

import json
import os
import signal
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import spacetime
from spacetime.benchmarks.driving.server_process import (
    Way,
    first_answer,
    free_port,
    process,
    triton_server,
)
from spacetime.benchmarks.goodput.models import (
    LARGEST_BATCH,
    SLO_MS,
    TOLERANCE,
    GoodputTenant,
    script_path,
    workload_path,
)

# The others drop what waited so long: Triton's best of a quarter, half and 80 % of the objective.
WAIT_MS = SLO_MS / 2
DELAY_US = 500  # for which Triton's batcher may wait for more
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    ways: Sequence[Way]  # by tenant
    leader: int  # the number of the first of its processes, which lead a session of their own

    @contextmanager
    def alone(self, others: Iterable[RunningServer]) -> Iterator[None]:
        """Stops the processes of the others meanwhile: LitServe's use a fifth of a core idle."""
        leaders = [other.leader for other in others if other is not self]
        try:
            for leader in leaders:
                _tell(leader, signal.SIGSTOP)
            yield
        finally:
            for leader in leaders:
                _tell(leader, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Returns the CPU seconds that its processes have used so far."""
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if os.getsid(int(folder.name)) == self.leader:
                    words = (folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
                    ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def ours(folder: Path, members: Sequence[GoodputTenant]) -> Iterator[RunningServer]:
    """Runs `spacetime serve` as a user would."""
    command = [sys.executable, "-m", "spacetime", "serve", str(workload_path(folder)), "--json"]
    command += ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    with process(command, output=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise RuntimeError("our own server ended before it was ready")
        port = int(json.loads(line)["http"].rpartition(":")[2])
        yield _checked(
            RunningServer([_oip(port, member) for member in members], running.pid), members
        )


@contextmanager
def triton(wheel: Path, folder: Path, members: Sequence[GoodputTenant]) -> Iterator[RunningServer]:
    """Runs Triton with an instance for each tenant, dynamic batching and a bound on waiting."""
    with triton_server(wheel, partial(_repository, folder, members)) as (running, port):
        yield _checked(
            RunningServer([_oip(port, member) for member in members], running.pid), members
        )


@contextmanager
def litserve(folder: Path, members: Sequence[GoodputTenant]) -> Iterator[RunningServer]:
    """Runs LitServe: an API for all tenants, a worker a core, batching, a bound on waiting."""
    port = free_port()
    command = [sys.executable, "-m", "spacetime.benchmarks.goodput.litserve", str(port)]
    command += [str(folder), str(WAIT_MS / 1000), *(member.name for member in members)]
    with process(command) as running:
        ways = [
            Way(port, "/predict", bytes([number]) + member.body, headers=BYTES)
            for number, member in enumerate(members)
        ]
        yield _checked(RunningServer(ways, running.pid), members)


def _tell(leader: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has died: asking it will say so
        os.killpg(leader, number)


def _checked(running: RunningServer, members: Sequence[GoodputTenant]) -> RunningServer:
    """Returns the server once it has answered for every tenant.

    Raises RuntimeError for scores other than the model's.
    """
    for way, member in zip(running.ways, members, strict=True):
        own = member.scores.numpy().ravel()
        scores = np.frombuffer(first_answer(way)[-own.nbytes :], np.float32)
        if len(scores) != len(own) or np.abs(scores - own).max() > TOLERANCE * np.abs(own).max():
            raise RuntimeError(f"{member.name} on port {way.port} answers other than its model")
    return running


def _oip(port: int, member: GoodputTenant) -> Way:
    """Returns a tenant's request by the Open Inference Protocol, with bytes behind the JSON."""
    shape, body = [*member.picture.shape], member.body
    tensor = {
        "name": "input_0", "shape": shape, "datatype": "FP32",
        "parameters": {"binary_data_size": len(body)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = BYTES | {"Inference-Header-Content-Length": str(len(head))}
    return Way(port, f"/v2/models/{member.name}/infer", head + body, headers=headers)


def _repository(folder: Path, members: Sequence[GoodputTenant], repository: Path) -> None:
    # The stub's own environment has numpy 1 and no PyTorch: it finds ours behind its own packages.
    paths = [str(Path(spacetime.__file__).parents[1]), sysconfig.get_path("purelib")]
    for member in members:
        place = repository / member.name
        (place / "1").mkdir(parents=True)
        (place / "config.pbtxt").write_text(_configuration(folder, member))
        (place / "1" / "model.py").write_text(
            f"import sys\nsys.path += {paths!r}\n"
            "from spacetime.benchmarks.goodput.triton import TritonPythonModel\n"
        )


def _configuration(folder: Path, member: GoodputTenant) -> str:
    inputs, outputs = ([*tensor.shape[1:]] for tensor in (member.picture, member.scores))
    return (
        f'name: "{member.name}" backend: "python" max_batch_size: {LARGEST_BATCH}\n'
        f'input [{{ name: "input_0" data_type: TYPE_FP32 dims: {inputs} }}]\n'
        f'output [{{ name: "output_0" data_type: TYPE_FP32 dims: {outputs} }}]\n'
        f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US}\n"
        f"default_queue_policy {{ timeout_action: REJECT\n"
        f"default_timeout_microseconds: {WAIT_MS * 1000:.0f} }} }}\n"
        "instance_group [{ kind: KIND_CPU count: 1 }]\n"
        f'parameters {{ key: "script" value: {{\n'
        f'string_value: "{script_path(folder, member.name)}" }} }}\n'
    )
