"""A request on its way: as a batch holds it, as the executor holds it, and its caller's future."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Work:
    """One request inside a batch: the family's member that answers it, and its flat inputs.

    leaves: the request's tensors, each `[samples, ...]`. until_ns: the request's deadline on the
    monotonic clock, after which it is neither started nor tried once more; None: no deadline.
    """

    member: int
    leaves: Sequence[Tensor]
    samples: int
    until_ns: int | None = None


class Runs(Protocol):
    """What runs a batch on the calling lane's thread."""

    def run(self, batch: Sequence[Work]) -> list[Any]:
        """Answers in the order of `batch`, each in the model's own return structure."""


class Answer(Future[Any]):
    """A request's future. cancel() also withdraws the request if it still waits."""

    withdraw: Callable[[], object] | None = None  # set once the request is accepted

    def cancel(self) -> bool:
        """Cancels unless resolved; a request that already runs finishes unseen."""
        cancelled = super().cancel()
        if cancelled and self.withdraw is not None:
            self.withdraw()
        return cancelled


@dataclass(eq=False, slots=True)
class InFlight:
    """An accepted request: its inputs until it has run, then its answer until it is fetched.

    Native code runs a request that has a `token`. When it ends, `outputs` hold what was written,
    each `[samples, ...]`, and `build` makes of them what the model returns; `kept` holds what has
    to stay alive meanwhile, such as the payload with their addresses. A request without a token is
    run by `runner`, on the lane's thread. `until_ns`: its deadline on the monotonic clock.
    """

    tenant: str
    member: int
    runner: Runs
    leaves: Sequence[Tensor]
    samples: int
    token: int | None = None
    outputs: Sequence[Tensor] = ()
    build: Callable[[Sequence[Tensor]], Any] | None = None
    kept: object = None
    future: Answer = field(default_factory=Answer)
    answer: Any = None
    error: BaseException | None = None
    until_ns: int | None = None
