"""One process per model, asked through a pipe by a thread of its own: a common way to serve."""

from __future__ import annotations

import io
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor, nn


def preload(modules: Sequence[str]) -> None:
    """Imports modules for processes to come: R models then start in a second or two.

    Takes effect before the first process of this program. Ctrl-C is for the program alone, which
    ends them: they are born with it blocked.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spacetime.benchmarks.driving.booth", *modules])
    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ProcessServer:
    """A process with `torch.set_num_threads(1)` for each model; inputs and answers are copied."""

    def __init__(self, models: Sequence[nn.Module], x: Tensor) -> None:
        context = multiprocessing.get_context("forkserver")
        self._shape = tuple(x.shape)
        self._waiting: list[SimpleQueue[tuple[Tensor, Future[Tensor]] | None]] = []
        self._threads: list[threading.Thread] = []
        self._processes: list[BaseProcess] = []
        for model in models:
            ours, theirs = context.Pipe()
            held = io.BytesIO()
            torch.save(model, held)
            process = context.Process(
                target=_serve, args=(theirs, held.getvalue(), self._shape), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._add_caller(ours)
        for tenant in range(len(models)):
            self.submit(tenant, x).result()

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        """Returns a future of the tenant's answer."""
        future: Future[Tensor] = Future()
        self._waiting[tenant].put((x, future))
        return future

    def close(self) -> None:
        """Answers what was submitted and ends the processes."""
        for queue in self._waiting:
            queue.put(None)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.join()

    def _add_caller(self, pipe: Connection) -> None:
        queue: SimpleQueue[tuple[Tensor, Future[Tensor]] | None] = SimpleQueue()
        thread = threading.Thread(target=_call, args=(pipe, queue), daemon=True)
        self._waiting.append(queue)
        self._threads.append(thread)
        thread.start()


def _call(pipe: Connection, waiting: SimpleQueue[tuple[Tensor, Future[Tensor]] | None]) -> None:
    """Runs a caller's thread: one request at a time to its process."""
    with pipe:
        while (request := waiting.get()) is not None:
            x, future = request
            if not future.set_running_or_notify_cancel():
                continue
            pipe.send_bytes(x.numpy().tobytes())
            future.set_result(_tensor(pipe.recv_bytes(), (1, -1)))
        pipe.send_bytes(b"")


def _serve(pipe: Connection, held: bytes, shape: tuple[int, ...]) -> None:
    """Runs a process: answers until an empty message."""
    torch.set_num_threads(1)
    model: nn.Module = torch.load(io.BytesIO(held), weights_only=False)
    with torch.no_grad(), suppress(EOFError):  # whoever asked has gone
        while message := pipe.recv_bytes():
            pipe.send_bytes(model(_tensor(message, shape)).numpy().tobytes())


def _tensor(message: bytes, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(message), np.float32).reshape(shape))
