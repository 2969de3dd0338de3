"""Ways to serve R models in one program: our sessions, and what a user would write today.

All take requests from any thread and answer with futures, so one driver measures them all.
"""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import spacetime as st

Call = Callable[[Tensor], Tensor]
Request = tuple[Tensor, Future[Tensor]]


class TenantServer(Protocol):
    """Answers requests `[1, ...]` to the tenants 0 to R - 1."""

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        """Returns a future of the tenant's answer."""
        ...

    def close(self) -> None:
        """Answers what was submitted, then ends every thread and process."""
        ...


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def scripted(model: nn.Module, x: Tensor) -> Call:
    """Returns a model as the fastest TorchScript that PyTorch documents.

    It is traced with x, frozen and optimised for inference.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # see kernels/scripted.py
        trace: Any = torch.jit.trace  # untyped in PyTorch
        traced = torch.jit.freeze(trace(model, x, check_trace=False))
        fast: Call = torch.jit.optimize_for_inference(traced)
        fast(x)
    return fast


class SessionServer:
    """A session under a policy; requests may carry a deadline. It starts without tenants."""

    def __init__(self, *, policy: str, lanes: Sequence[Sequence[int]] | None = None) -> None:
        self.session = st.Session("cpu", policy=policy, lanes=lanes)
        self.tenants: list[st.Tenant] = []
        self.deadline_ms: float | None = None

    def grow(self, models: Sequence[nn.Module], x: Tensor) -> None:
        """Adds those of `models` that are not tenants yet; they are asked with inputs like x."""
        for model in models[len(self.tenants) :]:
            self.tenants.append(self.session.add(model, example_inputs=(x,)))

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = self.tenants[tenant].submit(x, deadline_ms=self.deadline_ms)
        return future

    def close(self) -> None:
        self.session.close()


class LoopServer:
    """One thread answers one request after the other, each on all cores."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._waiting: SimpleQueue[tuple[int, Tensor, Future[Tensor]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        self._waiting.put((tenant, x, future))
        return future

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        torch.set_num_threads(cores())
        with torch.no_grad():
            while (request := self._waiting.get()) is not None:
                tenant, x, future = request
                _answer(future, self._calls[tenant], x)


class PoolServer:
    """A ThreadPoolExecutor with a thread for each core and `torch.set_num_threads(1)`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._pool = ThreadPoolExecutor(cores(), initializer=_one_thread_without_grad)

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        return self._pool.submit(self._calls[tenant], x)

    def close(self) -> None:
        self._pool.shutdown()


class VmapServer:
    """`torch.func`'s model ensemble: one request of every tenant at a time, stacked, by vmap.

    A tenant without a waiting request computes on zeros, as the ensemble has a fixed width.
    """

    def __init__(self, models: Sequence[nn.Module], x: Tensor) -> None:
        state: Any = torch.func.stack_module_state(list(models))
        base = copy.deepcopy(models[0]).to("meta")

        def call(parameters: Any, buffers: Any, row: Tensor) -> Any:
            return torch.func.functional_call(base, (parameters, buffers), (row,))

        ensemble: Any = torch.func.vmap(call)
        self._call: Call = lambda rows: ensemble(*state, rows)
        self._idle = torch.zeros_like(x)
        self._waiting: list[deque[Request]] = [deque() for _ in models]
        self._changed = threading.Condition()
        self._closing = False
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # vmap names each operator that it has to loop over
            self._call(torch.stack([x] * len(models)))  # raises where vmap cannot do it
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        with self._changed:
            self._waiting[tenant].append((x, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        torch.set_num_threads(cores())
        with torch.no_grad():
            while (turn := self._next()) is not None:
                rows = [self._idle if request is None else request[0] for request in turn]
                answers = self._call(torch.stack(rows))
                for request, answer in zip(turn, answers, strict=True):
                    if request is not None:
                        request[1].set_result(answer)

    def _next(self) -> list[Request | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or any(self._waiting))
            if not any(self._waiting):
                return None
            return [_first(queue) for queue in self._waiting]


def _first(queue: deque[Request]) -> Request | None:
    """Returns the first request that its caller still wants; None where there is none."""
    while queue:
        request = queue.popleft()
        if request[1].set_running_or_notify_cancel():
            return request
    return None


def _one_thread_without_grad() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def _answer(future: Future[Tensor], call: Call, x: Tensor) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        answer = call(x)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(answer)
