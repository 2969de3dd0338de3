"""A server in a process of its own, with the driver that asks it.

Servers compared must not share a process: each would find the others' teams of OpenMP threads, and
libgomp's threads stop spinning between parallel regions when there are more of them than cores,
which halves the speed of whoever uses all cores. Alone, each runs as it would deployed.
"""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spacetime.benchmarks.driving.loads import LoadOutcome, closed_loop, open_loop
from spacetime.benchmarks.driving.processes import ProcessServer
from spacetime.benchmarks.driving.servers import (
    LoopServer,
    PoolServer,
    SessionServer,
    TenantServer,
    VmapServer,
    scripted,
)
from spacetime.demo.zoo.exhibits import ZooModel
from spacetime.units import ms_from_ns

Answer = TypeVar("Answer")
POLICIES = ("time-only", "space-only", "space-time")
BASELINES = (
    "loop, eager",
    "loop, TorchScript",
    "threads, eager",
    "threads, TorchScript",
    "processes",
    "vmap ensemble",
)
Make = Callable[[Sequence[nn.Module], Tensor], TenantServer]


def _compiled(models: Sequence[nn.Module], x: Tensor) -> list[Callable[[Tensor], Tensor]]:
    return [scripted(model, x) for model in models]


def _one_core(models: Sequence[nn.Module], x: Tensor) -> TenantServer:
    return SessionServer(policy="space-only", lanes=[[min(os.sched_getaffinity(0))]])


def _session(policy: str, models: Sequence[nn.Module], x: Tensor) -> TenantServer:
    return SessionServer(policy=policy)


MAKERS: dict[str, Make] = {
    **{policy: partial(_session, policy) for policy in POLICIES},
    "one one-core lane": _one_core,
    "loop, eager": lambda models, x: LoopServer(models),
    "loop, TorchScript": lambda models, x: LoopServer(_compiled(models, x)),
    "threads, eager": lambda models, x: PoolServer(models),
    "threads, TorchScript": lambda models, x: PoolServer(_compiled(models, x)),
    "processes": ProcessServer,
    "vmap ensemble": VmapServer,
}


class Keeper:
    """Lives in a booth's process: the server, and variations of one model that are its tenants."""

    def __init__(self, name: str, first: ZooModel, seed: int) -> None:
        self._name = name
        self._seed = seed
        self._held = [first]
        self._server: TenantServer | None = None

    def grow(self, tenants: int) -> str | None:
        """Serves so many tenants from now on. Returns why not, where PyTorch cannot in this way."""
        self._held += [self._variation(n) for n in range(len(self._held), tenants)]
        models = [held.model for held in self._held[:tenants]]
        x = self._held[0].pool[:1]
        if not isinstance(self._server, SessionServer):
            self.close()
            try:
                self._server = MAKERS[self._name](models, x)
            except (RuntimeError, ValueError) as error:
                if self._name in POLICIES:
                    raise
                return (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(self._server, SessionServer):
            self._server.grow(models, x)
        return None

    def closed_loop(self, *, tenants: int, outstanding: int, seconds: float) -> LoadOutcome:
        """Keeps `outstanding` requests of each tenant under way for `seconds`."""
        pools = [held.pool for held in self._held[:tenants]]
        return closed_loop(self._asked(None), pools, outstanding=outstanding, seconds=seconds)

    def open_loop(
        self, *, tenants: int, rate_rps: float, slo_ns: int, seconds: float, seed: int
    ) -> LoadOutcome:
        """Sends Poisson arrivals; sessions drop requests that have not started at the objective."""
        return open_loop(
            self._asked(ms_from_ns(slo_ns)),
            [held.pool for held in self._held[:tenants]],
            rate_rps=rate_rps,
            slo_ns=slo_ns,
            seconds=seconds,
            seed=seed,
        )

    def how(self) -> str:
        """Returns what a session's explain() says; empty for other servers."""
        return self._server.session.explain() if isinstance(self._server, SessionServer) else ""

    def errors(self, tenants: int) -> float:
        """Returns the largest relative difference between the server's answers and the models'."""
        server, worst = self._asked(None), 0.0
        for tenant, held in enumerate(self._held[:tenants]):
            x = held.pool[tenant : tenant + 1]
            with torch.no_grad():
                own = held.model(x)
            answer = server.submit(tenant, x).result()
            worst = max(worst, float((answer - own).abs().max() / own.abs().max()))
        return worst

    def close(self) -> None:
        """Closes the server."""
        if self._server is not None:
            self._server.close()

    def _asked(self, deadline_ms: float | None) -> TenantServer:
        assert self._server is not None
        if isinstance(self._server, SessionServer):
            self._server.deadline_ms = deadline_ms
        return self._server

    def _variation(self, number: int) -> ZooModel:
        """Returns the first model with other weights: training each would measure nothing more."""
        draw = torch.Generator().manual_seed(1000 * self._seed + number)
        model = copy.deepcopy(self._held[0].model)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.data.mul_(1 + 0.05 * noise)
        return replace(self._held[0], name=f"{self._held[0].name}-{number}", model=model)


class Booth:
    """A Keeper in a process; one order at a time, and it idles between orders. close() ends it."""

    def __init__(self, name: str, first: ZooModel, seed: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        held = io.BytesIO()
        torch.save(first, held)
        self._process = context.Process(target=_keep, args=(theirs, name, held.getvalue(), seed))
        self._process.start()
        theirs.close()

    def ask(self, order: Callable[[Keeper], Answer]) -> Answer:
        """Returns what `order` returns in the process. Raises RuntimeError with what it raised.

        order: a method of Keeper, with its arguments bound by `partial`.
        """
        self._pipe.send(order)
        answer, error = self._pipe.recv()
        if error is not None:
            raise RuntimeError(error)
        answered: Answer = answer
        return answered

    def close(self) -> None:
        """Closes the server and ends the process."""
        self._pipe.send(None)
        self._process.join()

    def kill(self) -> None:
        """Ends the process whatever it does."""
        self._process.kill()
        self._process.join()


def _keep(pipe: Connection, name: str, held: bytes, seed: int) -> None:
    """Runs a booth's process until it is told to end, or its parent ends."""
    torch.set_num_threads(1)  # this thread must not found a team: see above
    keeper = Keeper(name, torch.load(io.BytesIO(held), weights_only=False), seed)
    while (order := _next(pipe)) is not None:
        try:
            answer: tuple[Any, str | None] = (order(keeper), None)
        except Exception as error:  # crosses the pipe as text
            answer = (None, f"{name}: {type(error).__name__}: {error}")
        pipe.send(answer)
    keeper.close()


def _next(pipe: Connection) -> Callable[[Keeper], Any] | None:
    try:
        order: Callable[[Keeper], Any] | None = pipe.recv()
    except EOFError:
        return None
    return order
