"""Recordings: what a scheduler was told and what it decided, and whether it decides so again.

The scheduler has no clock and no threads. So the same version of it decides alike wherever a
recording of its inputs is replayed. Format: spacetime.recording/2, described in csrc/tape/tape.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import spacetime._native as _native
from spacetime.errors import RecordingError, ReplayError

MOST_BYTES = 1 << 28  # of a recording, some six million requests; later ones are not recorded


@dataclass(frozen=True, slots=True)
class Recording:
    """The bytes of a recording, as `Session.recording()` and `simulate(record=True)` make them."""

    data: bytes = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Writes the bytes to a file. Raises OSError."""
        Path(path).write_bytes(self.data)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Returns the recording in a file, which `replay` judges.

        Raises RecordingError where the file cannot be read.
        """
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event that a replay answers otherwise, and both answers."""

    at_ns: int  # from the first event
    event: int  # its number, from 1
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
    """What was replayed, up to the first difference: how many events, requests and decisions."""

    events: int
    requests: int
    starts: int
    drops: int
    span_ns: int  # from the first event to the last
    complete: bool  # whether the recording goes on to the end of its run
    difference: Difference | None

    @property
    def same(self) -> bool:
        """Whether every decision was the recorded one."""
        return self.difference is None

    def check(self) -> None:
        """Raises ReplayError naming the first difference, where there is one."""
        if self.difference is not None:
            raise ReplayError(str(self.difference))


def replay(recording: Recording) -> Replay:
    """Feeds a fresh scheduler the recorded events, and compares its decisions with the recorded.

    Raises RecordingError, naming the byte, for bytes that are no recording, are cut off, or do not
    fit their checksum.
    """
    try:
        result = _native.replay(recording.data)
    except ValueError as error:
        raise RecordingError(str(error)) from None
    difference = result.difference
    return Replay(
        result.events,
        result.requests,
        result.starts,
        result.drops,
        result.span_ns,
        result.complete,
        None
        if difference is None
        else Difference(
            difference.at_ns, difference.event, difference.recorded, difference.replayed
        ),
    )
