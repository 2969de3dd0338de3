"""The command that watches a server."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, NumberRange


@click.command()
@click.option(
    "--url",
    default="localhost:8002",
    show_default=True,
    help="Where the server's metrics are: HOST, HOST:PORT or http(s)://….",
)
@click.option("--token-file", type=FILE, help="Its first token opens the address.")
@click.option(
    "--interval", type=NumberRange(0.05, 3600), default=1.0, show_default=True, help="Seconds."
)
@click.option("--once", is_flag=True, help="Print one table, of everything so far, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one reading as JSON.")
def top(**options: Any) -> None:
    """Watch a server: tenants, lanes, queues, attainment, units. The key q ends it."""
    command = import_module("spacetime.commands.top")
    command.run(command.TopCommand(**options))
