"""`spacetime replay`: decides a recorded run anew, and says whether it came out the same."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spacetime.reports.recording import Recording, Replay, replay


@dataclass(frozen=True, kw_only=True)
class ReplayCommand:
    """The options of `spacetime replay`."""

    recording: Path
    as_json: bool


def run(asked: ReplayCommand) -> None:
    """Prints a line, or JSON. Raises RecordingError where a decision differs, after it is told."""
    replayed = replay(Recording.load(asked.recording))
    if asked.as_json:
        print(json.dumps({"same": replayed.same, **asdict(replayed)}, indent=2))
    elif replayed.same:
        print_replay(replayed)
    replayed.check()


def print_replay(replayed: Replay) -> None:
    """What was decided the same again, in a line."""
    cut = "" if replayed.complete else "; the recording stops before the run did"
    print(
        f"same: {replayed.requests} requests, {replayed.events} events, {replayed.starts} starts, "
        f"{replayed.drops} drops in {replayed.span_ns / 1e9:.3f} s{cut}"
    )
