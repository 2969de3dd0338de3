"""All ways to serve the same models, opened side by side for one row of `bench models`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from spacetime.benchmarks.processes import ProcessServer
from spacetime.benchmarks.servers import (
    LoopServer,
    PoolServer,
    Server,
    SessionServer,
    VmapServer,
    scripted,
)

POLICIES = ("time-only", "space-only", "space-time")
BASELINES = (
    "loop, eager",
    "loop, TorchScript",
    "threads, eager",
    "threads, TorchScript",
    "processes",
    "vmap ensemble",
)


@dataclass(frozen=True, slots=True)
class Contest:
    """The servers that could be opened, and why the others could not."""

    servers: Mapping[str, Server]
    refused: Mapping[str, str]

    @property
    def how(self) -> str:
        """What space-time's session says about its families."""
        session = self.servers["space-time"]
        assert isinstance(session, SessionServer)
        return session.session.explain()

    def drop_after(self, deadline_ms: float | None) -> None:
        """Gives every request to a session this deadline; the others know no deadlines."""
        for server in self.servers.values():
            if isinstance(server, SessionServer):
                server.deadline_ms = deadline_ms


@contextmanager
def sessions() -> Iterator[dict[str, SessionServer]]:
    """A session for each policy, without tenants: contests add them as R grows."""
    with ExitStack() as stack:
        opened = {policy: SessionServer(policy=policy) for policy in POLICIES}
        for server in opened.values():
            stack.callback(server.close)
        yield opened


@contextmanager
def contest(
    models: Sequence[nn.Module], x: Tensor, ours: Mapping[str, SessionServer]
) -> Iterator[Contest]:
    """Every server for `models`, each asked with inputs like `x` `[1, ...]`; `ours` stay open."""
    servers: dict[str, Server] = {}
    refused: dict[str, str] = {}
    for name, server in ours.items():
        server.grow(models, x)
        server.deadline_ms = None
        servers[name] = server
    with ExitStack() as stack:
        for name, make in _makers(models, x).items():
            if (reason := _open(name, make, servers)) is not None:
                refused[name] = reason
            else:
                stack.callback(servers[name].close)
        yield Contest(servers, refused)


def _open(name: str, make: Callable[[], Server], servers: dict[str, Server]) -> str | None:
    """Adds the server; why not, where PyTorch cannot serve this model in this way."""
    try:
        servers[name] = make()
    except (RuntimeError, ValueError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


@contextmanager
def lanes_of(models: Sequence[nn.Module], x: Tensor) -> Iterator[dict[str, Server]]:
    """Sessions of one one-core lane and of one such lane for each core."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for count in (1, len(cores)):
            lanes = [[core] for core in cores[:count]]
            server = SessionServer(policy="space-only", lanes=lanes)
            server.grow(models, x)
            stack.callback(server.close)
            servers[str(count)] = server
        yield servers


def _makers(models: Sequence[nn.Module], x: Tensor) -> dict[str, Callable[[], Server]]:
    cores = len(os.sched_getaffinity(0))
    compiled = [scripted(model, x) for model in models]
    return {
        "loop, eager": lambda: LoopServer(models),
        "loop, TorchScript": lambda: LoopServer(compiled),
        "threads, eager": lambda: PoolServer(models, cores),
        "threads, TorchScript": lambda: PoolServer(compiled, cores),
        "processes": lambda: ProcessServer(models, x),
        "vmap ensemble": lambda: VmapServer(models, x),
    }
