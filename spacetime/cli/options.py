"""Types of command-line options, and the options that several commands share."""

from __future__ import annotations

import math
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click

from spacetime.policy import PRESETS


class OutFile(click.ParamType):  # type: ignore[type-arg]  # generic in some versions only
    """A file to write when the work is done; that it can be written is checked before."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; fails with one line where no file can be written there."""
        path = Path(value)
        try:
            if path.is_dir():
                self.fail(f"{path} is a folder; name a file in it", param, ctx)
            if not path.parent.is_dir():
                self.fail(f"{path.parent} is no folder; make it first", param, ctx)
            if path.is_file():
                path.open("ab").close()
            elif not path.exists():  # a pipe would wait for its reader
                TemporaryFile(dir=path.parent).close()
        except OSError as error:
            self.fail(f"{path}: {error.strerror}; name a file that can be written", param, ctx)
        return path


class OutFolder(click.ParamType):  # type: ignore[type-arg]  # generic in some versions only
    """A folder made when the work is done; that it can be made and written is checked before."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; fails with one line where no folder can be, or nothing be written in it."""
        path = Path(value)
        try:
            folders = (path, *path.absolute().parents)
            there = next(folder for folder in folders if os.path.lexists(folder))
            if not there.is_dir():
                self.fail(f"{there} is no folder; name another one", param, ctx)
            TemporaryFile(dir=there).close()
        except OSError as error:
            self.fail(f"{path}: {error.strerror}; name a folder to write in", param, ctx)
        return path


FILE = click.Path(dir_okay=False, path_type=Path)
OUT_FILE = OutFile()
OUT = OutFolder()


class NumberRange(click.FloatRange):
    """A number in a range; click's own lets NaN through, since it is not outside."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


# Options of several commands, as decorators.
ISOLATION = click.option(
    "--isolation",
    type=click.Choice(["thread", "process"]),
    default="thread",
    show_default=True,
    help="What a lane of cores is: a thread of this process, or a process of its own.",
)
PLAN = click.option(
    "--plan", type=FILE, help="JSON file of a plan to run; it is checked against --profiles."
)
PROFILES = click.option(
    "--profiles", type=FILE, help="CSV file of latencies; without --plan, a plan is made from them."
)
GPU = click.option(
    "--gpu", type=click.IntRange(0), help="Which of the plan's devices this one is, by its id."
)
POLICY = click.option(
    "--policy",
    type=click.Choice(list(PRESETS)),
    help="Default: the plan's own, or space-time without a plan.",
)
MAX_PROCS = click.option(
    "--max-procs",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="The most processes side by side on a partition, as the plan was made with.",
)
MAX_UTILISATION = click.option(
    "--max-utilisation",
    type=NumberRange(0.01, 1),
    default=0.9,
    show_default=True,
    help="How busy a partition may be, as the plan was made with.",
)
PERIOD = click.option(
    "--period",
    type=NumberRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from one look of the controller to the next.",
)
