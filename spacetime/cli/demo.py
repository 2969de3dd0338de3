"""The command that a newcomer runs first."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from spacetime.cli.options import OUT, NumberRange

MODELS = ("digits", "resnet", "mobilenet", "transformer", "all")


@click.command()
@click.option(
    "--tenants",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="How many models share the device.",
)
@click.option(
    "--seconds",
    type=NumberRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="How long each policy runs, in seconds.",
)
@click.option(
    "--model", type=click.Choice(MODELS), default="digits", show_default=True, help="What they are."
)
@click.option(
    "--load",
    type=NumberRange(0.01, 100),
    default=3.5,
    show_default=True,
    help="Offered requests, as a multiple of what time-only can answer.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and arrivals."
)
@click.option("--out", type=OUT, default=Path("out"), show_default=True, help="Where files go.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def demo(**options: Any) -> None:
    """Run real models under three policies and compare them."""
    with import_module("spacetime.terminal.progress").working("loading PyTorch"):
        command = import_module("spacetime.commands.demo")
    command.run(command.DemoCommand(**options))
