"""Types of command-line options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)
OUT = click.Path(file_okay=False, path_type=Path)
ISOLATION = click.option(
    "--isolation", type=click.Choice(["thread", "process"]), default="thread", show_default=True,
    help="What a lane of cores is: a thread of this process, or a process of its own.",
)  # fmt: skip


class Number(click.FloatRange):
    """A number in a range; click's own lets NaN through, since it is not outside."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number
