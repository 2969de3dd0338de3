"""The command that decides a recorded run anew."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE


@click.command(short_help="Check that a recorded run decides the same again.")
@click.argument("recording", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a line.")
def replay(**options: Any) -> None:
    """Check that a recorded run decides the same again; if not, tell the first difference and end
    with status 1."""
    command = import_module("spacetime.commands.replay")
    command.run(command.ReplayCommand(**options))
