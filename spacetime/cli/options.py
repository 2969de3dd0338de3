"""Types of command-line options that several commands share."""

from __future__ import annotations

import math
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click


class OutFile(click.ParamType):  # type: ignore[type-arg]  # generic in some versions only
    """A file to write when the work is done; whether it can be is found out before."""

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
    """A folder to write into when the work is done, made then; that it can be is found out now."""

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
ISOLATION = click.option(
    "--isolation", type=click.Choice(["thread", "process"]), default="thread", show_default=True,
    help="What a lane of cores is: a thread of this process, or a process of its own.",
)  # fmt: skip


class NumberRange(click.FloatRange):
    """A number in a range; click's own lets NaN through, since it is not outside."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number
