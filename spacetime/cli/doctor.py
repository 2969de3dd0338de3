"""The command that says what this machine can do."""

from __future__ import annotations

import json
from importlib import import_module

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(*, as_json: bool) -> None:
    """Say what this machine offers and what this build can use."""
    doctor = import_module("spacetime.devices.doctor")
    facts: dict[str, object] = doctor.facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        doctor.show(facts)
