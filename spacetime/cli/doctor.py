"""The command that says what this machine can do."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(**options: Any) -> None:
    """Say what this machine offers and what this build can use."""
    command = import_module("spacetime.commands.doctor")
    command.run(command.DoctorCommand(**options))
