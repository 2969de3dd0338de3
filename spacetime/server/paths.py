"""Models' names in paths: what a path asks of which model, and the names that no path can carry.

A name is one percent-encoded segment (`org%2Fmodel-7b`), or has its slashes as they are, as
Triton's clients send them: then it is what lies between `/v2/models/` and the last words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from unicodedata import category
from urllib.parse import unquote

from spacetime.workload.workload import WorkloadError

ACTIONS = frozenset({"ready", "config", "stats", "infer"})
CHANGES = frozenset({"load", "unload"})
_MODEL = ("v2", "models", "*")
_CHANGED = ("v2", "repository", "models", "*")
INFER = (*_MODEL, "infer")
ALL_STATISTICS = ["v2", "models", "stats"]
MOST_BYTES = 1000  # of a name; percent-encoded it is up to three times as long, inside a path
_UNPRINTED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of a character, line ends


class Place(NamedTuple):
    """What a path asks for: its words, with `*` in place of a model's name, and the model's name
    and version. `model` is empty and `version` None where the path names none."""

    words: tuple[str, ...]
    model: str = ""
    version: str | None = None


def place_of(path: str) -> Place:
    """Returns what a path asks for. `path` is as it was sent: percent-encoded."""
    parts = path.strip("/").split("/")
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if parts[:2] == ["v2", "models"] and len(parts) > 2 and parts != ALL_STATISTICS:
        return _of_model(parts[2:])
    if parts[:3] == ["v2", "repository", "models"] and len(parts) > 4 and parts[-1] in CHANGES:
        return Place((*_CHANGED, parts[-1]), "/".join(parts[3:-1]))
    return Place(tuple(parts))


def _of_model(parts: list[str]) -> Place:
    words: tuple[str, ...] = _MODEL
    version = None
    if len(parts) > 1 and parts[-1] in ACTIONS:
        words = *words, parts[-1]
        parts = parts[:-1]
    if len(parts) > 2 and parts[-2] == "versions" and parts[-1]:
        version = parts[-1]
        parts = parts[:-2]
    return Place(words, "/".join(parts), version)


def check_names(names: Iterable[str]) -> None:
    """Raises WorkloadError, naming the tenant, for the first name that no path can carry."""
    for name in names:
        if (problem := _problem(name)) is not None:
            text = f"no path can carry it, for {problem}; rename the tenant"
            raise WorkloadError(f"tenant {name!r:.80}: name", text)


def _problem(name: str) -> str | None:
    """Returns why no path asks for the model of that name; None where one does."""
    parts = name.split("/")
    others = _of_model(parts).model != name or (len(parts) > 1 and parts[-1] == "versions")
    problems = {
        "it holds a control character": any(category(letter) in _UNPRINTED for letter in name),
        f"it has more than {MOST_BYTES} bytes": len(name.encode(errors="replace")) > MOST_BYTES,
        "it begins or ends with a slash, or has two together": not all(parts),
        "clients take . and .. out of a path": bool({".", ".."} & set(parts)),
        "/v2/models/stats is the statistics of all models": parts == ALL_STATISTICS[2:],
        f"/{'/'.join(parts[1:]):.40} at its end asks something of another model": others,
    }
    return next((problem for problem, present in problems.items() if present), None)
