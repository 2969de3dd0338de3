"""What was measured to be fastest, remembered between processes: one small JSON file a device.

The file's name holds the device, its driver's version and Triton's, so a change of any of them
starts afresh. Whoever measures chooses the keys and the values; `Config.name` is such a value.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

FORMAT = "spacetime.choices/1"


def cache_folder() -> Path:
    """The folder for this project's caches, as the XDG base directories place it."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "spacetime"


def choices_of(device: str, driver: str, folder: Path | None = None) -> StoredChoices:
    """The stored choices of a device, under its driver and the installed Triton.

    `device`, `driver`: the device's name and its driver's version.
    `folder`: where the file lies; None means `cache_folder()`.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{device} driver {driver} triton {version('triton')}")
    return StoredChoices((folder or cache_folder()) / f"{name.lower()}.json")


class StoredChoices:
    """A mapping of text to text in a file. A file that cannot be read counts as empty, with a
    warning.

    *Thread safety*: for one thread. Processes may share the file. It is replaced as a whole,
    together with what the others had written, so at worst a choice made at the same moment is lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chosen = _read(path)

    def get(self, key: str) -> str | None:
        """What was chosen for `key`; None where nothing was."""
        return self._chosen.get(key)

    def put(self, key: str, value: str) -> None:
        """Remember a choice.

        Where the folder cannot be written to there is a warning and no error: the choice then lasts
        as long as this object.
        """
        self._chosen[key] = value
        try:
            self._chosen = {**_read(self.path), **self._chosen}
            self._write()
        except OSError as error:
            warnings.warn(f"{self.path}: not written: {error.strerror}", stacklevel=2)

    def _write(self) -> None:
        """Write a draft beside the file, then put it in the file's place at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "chosen": self._chosen}, indent=1, sort_keys=True)
        handle, draft = tempfile.mkstemp(dir=self.path.parent, prefix=".choices")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            Path(draft).replace(self.path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise


def _read(path: Path) -> dict[str, str]:
    """The choices in a file; empty where there is none or it cannot be read."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        warnings.warn(f"{path}: ignored, measured anew: {error}", stacklevel=3)
        return {}


def _parsed(text: str) -> dict[str, str]:
    """The choices in a file's text. Raises ValueError where its format is another."""
    stored = json.loads(text)
    if stored["format"] != FORMAT:
        raise ValueError(f"its format is {stored['format']!r}")
    return {str(key): str(value) for key, value in stored["chosen"].items()}
