"""Recordings: what a scheduler was told and what it decided; replay() asks for the same again.

The scheduler has no clock and no threads, so a recording of its inputs decides alike wherever it
is replayed by the same version. Format spacetime.recording/2: csrc/sched/tape.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import spacetime._native as _native
from spacetime.errors import RecordingError, ReplayError

MOST_BYTES = 1 << 28  # some six million requests; what comes after is not recorded


@dataclass(frozen=True, slots=True)
class Recording:
    """The bytes of a recording, as `Session.recording()` and `simulate(record=True)` make them."""

    data: bytes = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Writes them to a file. Raises OSError."""
        Path(path).write_bytes(self.data)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Reads a file; replay() judges it. Raises RecordingError if it cannot be read."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event (its number, from 1) answered otherwise, `at_ns` after the first one."""

    at_ns: int
    event: int
    recorded: str
    replayed: str

    def __str__(self) -> str:
        at_ms = self.at_ns / 1e6
        return (
            f"differs {at_ms:.6f} ms after its first event, at event {self.event}: "
            f"recorded: {self.recorded}; replayed: {self.replayed}"
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """What was replayed, up to the first difference. `complete`: to the end of the run."""

    events: int
    requests: int
    starts: int
    drops: int
    span_ns: int
    complete: bool
    difference: Difference | None

    @property
    def same(self) -> bool:
        """Whether every decision was the recorded one."""
        return self.difference is None

    def check(self) -> None:
        """Raises ReplayError with the first difference, if there is one."""
        if self.difference is not None:
            raise ReplayError(str(self.difference))


def replay(recording: Recording) -> Replay:
    """Feeds a fresh scheduler the recorded events and compares its decisions with the recorded.

    Raises RecordingError, one line naming the byte, for what is no recording, is cut off or was
    altered without renewing its checksum.
    """
    try:
        result = _native.replay(recording.data)
    except ValueError as error:
        raise RecordingError(str(error)) from None
    found = result.difference
    return Replay(
        result.events,
        result.requests,
        result.starts,
        result.drops,
        result.span_ns,
        result.complete,
        None
        if found is None
        else Difference(found.at_ns, found.event, found.recorded, found.replayed),
    )
