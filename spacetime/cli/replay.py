"""The command that decides a recorded run anew."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE


@click.command(short_help="Does a recorded run decide the same again?")
@click.argument("recording", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a line.")
def replay(**options: Any) -> None:
    """Does a recorded run decide the same again? Status 1 and the first difference if not."""
    command = import_module("spacetime.commands.replay")
    command.run(command.ReplayCommand(**options))
