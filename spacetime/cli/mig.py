"""The command that shows and changes MIG instances."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from spacetime.cli.options import FILE

ON = click.option(
    "--on",
    default="driver",
    show_default=True,
    help="This machine's driver, or fake:h200-141gb: devices that do not exist.",
)
YES = click.option("--yes", is_flag=True, help="Do it. Without it the steps are only printed.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _module() -> Any:
    return import_module("spacetime.commands.mig")


@click.group(short_help="MIG instances: list, check, apply, destroy.")
def mig() -> None:
    """MIG instances: list them, check a plan against them, apply it, destroy them."""


@mig.command("list")
@ON
@JSON
def list_(*, on: str, as_json: bool) -> None:
    """The devices, their MIG mode and instances."""
    _module().print_instances(_module().opened(on), as_json=as_json)


@mig.command()
@click.argument("plan", type=FILE)
@ON
@JSON
def check(*, plan: Path, on: str, as_json: bool) -> None:
    """What applying PLAN would do, or why it cannot be done."""
    _module().check(_module().opened(on), plan, as_json=as_json)


@mig.command(short_help="Create the instances of PLAN.")
@click.argument("plan", type=FILE)
@YES
@ON
@JSON
def apply(*, plan: Path, yes: bool, on: str, as_json: bool) -> None:
    """Create the instances of PLAN; those in its way that nobody uses are destroyed."""
    _module().apply(_module().opened(on), plan, yes=yes, as_json=as_json)


@mig.command()
@click.option("--gpu", type=click.IntRange(0), required=True)
@click.option("--id", "instances", type=click.IntRange(0), multiple=True, help="May be repeated.")
@click.option("--all", "everything", is_flag=True)
@YES
@ON
@JSON
def destroy(
    *, gpu: int, instances: tuple[int, ...], everything: bool, yes: bool, on: str, as_json: bool
) -> None:
    """Destroy instances that nobody uses."""
    nvml = _module().opened(on)
    _module().destroy(nvml, gpu, instances, everything=everything, yes=yes, as_json=as_json)
