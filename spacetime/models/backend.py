"""What a session asks of whatever holds its models and runs them: a backend, and its families.

There are three backends: `models/cpu/backend.py` (cores, threads of this process),
`models/cuda/backend.py` (partitions of SMs) and `processes/backend.py` (a process for each lane).
A session is given one of them and asks for nothing that only one of them has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

import spacetime._native as _native
from spacetime.errors import InvalidInput
from spacetime.models.flat import Outputs
from spacetime.models.request import InFlight, Runs, Work
from spacetime.models.signature import Signature

Units = Sequence[int]  # of a partition: core ids, or ids of a device's groups of SMs
Launch = Callable[[], int]  # makes one launch and returns the nanoseconds that it took
Repeat = Callable[[Launch], list[int]]  # makes as many launches as it wants; what each took


@dataclass(frozen=True, slots=True)
class FamilyOptions:
    """How a new tenant's family is to run.

    buckets: the batch sizes to prepare, ascending. slo_ns: the latency objective that bounds them;
    None: nothing does. batchable: whether the tenant's requests may share a launch; None leaves it
    to the proof. memory_limit: bytes of a device's memory that the tenant's weights may take.
    """

    buckets: Sequence[int]
    slo_ns: int | None
    batchable: bool | None
    memory_limit: int | None = None


class Updated(NamedTuple):
    """What came of new weights for a member.

    member: the member's number from now on. release: gives the old weights' memory back, and is to
    be called once every request of the old number has ended; None where there is nothing to do.
    functions_changed: native code must be given `Family.functions` anew.
    """

    member: int
    release: Callable[[], None] | None = None
    functions_changed: bool = False


class Family(Protocol):
    """Tenants whose requests may share a launch: one architecture, each with its own weights.

    number: the family's number in the executor, -1 until it has one. instead: what answers all
    requests once the family was taken apart; None before.
    """

    number: int
    instead: Runs | None

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes it is prepared for, ascending."""

    @property
    def outputs(self) -> Outputs:
        """How its flat output tensors become what the model returns."""

    @property
    def functions(self) -> Sequence[_native.NativeFunction]:
        """What runs its launches without Python, by lane; empty where Python runs them."""

    def request(self, tenant: str, member: int, leaves: Sequence[Tensor], samples: int) -> InFlight:
        """A request as the executor takes it; leaves: each `[samples, ...]`."""

    def predicted_ns(self, lane: int, bucket: int) -> int:
        """Wall time of a launch of `bucket` samples on a lane, in nanoseconds, as measured."""

    def how(self) -> str:
        """What runs the family, in words."""

    def lines(self) -> list[str]:
        """What runs the family, why, and its measured times: lines of explain()."""


F = TypeVar("F", bound=Family)


class Backend(Protocol[F]):
    """Holds the models of a session's tenants and runs them, on lanes that the session opens.

    Used under the session's lock, but for `granted` and `pids`.
    """

    @property
    def inputs(self) -> tuple[torch.device, ...]:
        """Where the tensors of a request may lie besides the CPU's memory."""

    @property
    def tolerance(self) -> float:
        """By how much, relatively, answers may differ from the CPU's in any case."""

    def join(
        self,
        model: nn.Module,
        signature: Signature,
        example: Sequence[Tensor],
        options: FamilyOptions,
    ) -> tuple[F, int]:
        """The family that `model` becomes a member of, known or new, and its number there.

        The model stays the caller's: what is kept is a copy. Raises InvalidInput, ModelError,
        UnsupportedError, OutOfMemory, DriverError, LaneLost, and nothing has changed.
        """

    def update(
        self, family: F, member: int, tenant: str, model: nn.Module, memory_limit: int | None
    ) -> Updated:
        """Gives a member the weights of `model`, which is the backend's from now on.

        Launches that run finish with the old weights. Raises InvalidInput, ModelError,
        UnsupportedError, OutOfMemory, LaneLost, and the old weights stay in force.
        """

    def leave(self, family: F, member: int) -> bool:
        """Forgets a member and gives its memory back; whether its family has gone with it."""

    def open(self, partitions: Sequence[Units]) -> None:
        """Makes everything ready for a new lane on each partition. Raises LaneLost."""

    def around(self, lane: _native.Lane) -> AbstractContextManager[None]:
        """Takes a new lane in; returns what the lane's dispatcher thread has to run inside."""

    def why_no_lane(self, units: Units) -> str:
        """Why no lane can be opened on `units` any more; empty where one can."""

    def rest(self, lane: int) -> None:
        """Lets go of what an idle lane needs only while it serves; wake() brings it back."""

    def wake(self, lanes: Iterable[int]) -> None:
        """Makes those of the lanes that rest ready again. Raises LaneLost."""

    def move(self, lane: int, units: Units) -> None:
        """Moves a lane to other units while it serves. Raises InvalidInput, LaneLost."""

    def granted(self, lanes: Sequence[_native.Lane]) -> list[int]:
        """How many cores or SMs each lane has."""

    @property
    def pids(self) -> list[int | None]:
        """The process of each lane, None while it is down; empty where lanes are threads."""

    def warm_up(self, family: F, member: int, units: Units, largest: int) -> None:
        """Runs a member at each bucket up to `largest` that has never run on a partition of this
        size."""

    def run(self, family: F, lane: int, batch: Sequence[Work]) -> list[list[Tensor]]:
        """The flat output tensors of each request, from one launch that the calling thread makes.

        Raises ValueError where an answer is not built as the example's was.
        """

    def time(self, family: F, lane: int, batch: Sequence[Work], repeat: Repeat) -> list[int]:
        """What `repeat` returns when it is given a launch of `batch` on the lane."""

    def close(self) -> None:
        """Ends what is still running for the lanes, which are closed. Idempotent."""


class ThreadLanes:
    """The part of a backend whose lanes are threads of this process: they need nothing else."""

    def open(self, partitions: Sequence[Units]) -> None:
        """Nothing: the executor's threads are all that lanes need."""

    def rest(self, lane: int) -> None:
        """Nothing: an idle thread takes no part of the device."""

    def wake(self, lanes: Iterable[int]) -> None:
        """Nothing."""

    def move(self, lane: int, units: Units) -> None:
        """Raises InvalidInput: a thread stays on the units that it was bound to."""
        raise InvalidInput("-", "lane", "of cores, in a process of its own", f"lane {lane}")

    def granted(self, lanes: Sequence[_native.Lane]) -> list[int]:
        """How many cores or SMs each lane has."""
        return [lane.size for lane in lanes]

    @property
    def pids(self) -> list[int | None]:
        """None at all: lanes have no processes of their own."""
        return []

    def close(self) -> None:
        """Nothing: the executor has ended its threads."""
