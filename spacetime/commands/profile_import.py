"""`spacetime profile --import`: brings in profiles that another project measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from spacetime.profiles.profile_file import write_profiles
from spacetime.profiles.profile_import import IMPORTERS


@dataclass(frozen=True, kw_only=True)
class ImportCommand:
    """The options of `spacetime profile --import`; `form` names the other project."""

    path: Path
    form: str
    out: Path
    as_json: bool


def run(asked: ImportCommand) -> None:
    """Read another project's profiles and write them as ours. Raises ProfileError."""
    profiles = IMPORTERS[asked.form](asked.path)
    write_profiles(asked.out, profiles)
    if asked.as_json:
        summary = {
            "device": profiles.device,
            "points": len(profiles),
            "models": list(profiles.models),
            "kinds": list(profiles.kinds),
            "file": str(asked.out),
        }
        print(json.dumps(summary, indent=2))
        return
    Console().print(
        f"{len(profiles):,} points of {len(profiles.models)} models on {profiles.device} in "
        f"{asked.out}",
        highlight=False,
    )
