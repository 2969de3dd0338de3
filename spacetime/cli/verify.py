"""The command that certifies isolation between partitions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import OUT, NumberRange

KINDS_OF_WORK = ("compute", "cache", "memory")
BOUNDS = ("private_held", "private_p99", "shared_held", "shared_p99")


@click.command(short_help="Certify isolation between partitions.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu or cuda:N; a fake one is not certified.",
)
@click.option(
    "--lanes", type=click.IntRange(2), default=2, show_default=True, help="How many partitions."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Of every pair; the median counts.",
)
@click.option(
    "--launches",
    type=click.IntRange(5),
    default=150,
    show_default=True,
    help="Of a probe, about half a millisecond each.",
)
@click.option(
    "--probe",
    type=click.Choice(KINDS_OF_WORK),
    multiple=True,
    default=KINDS_OF_WORK,
    help="May be repeated.",
)
@click.option(
    "--stressor",
    type=click.Choice(KINDS_OF_WORK),
    multiple=True,
    default=KINDS_OF_WORK,
    help="May be repeated.",
)
@click.option("--private-held", type=NumberRange(0, 1), help="What private pairs must hold.")
@click.option("--private-p99", type=NumberRange(1), help="Largest inflation of their p99.")
@click.option(
    "--shared-held", type=NumberRange(0, 1), help="What pairs that share a resource hold."
)
@click.option("--shared-p99", type=NumberRange(1), help="Largest inflation of their p99.")
@click.option("--out", type=OUT, help="Folder for the JSON and the picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def verify(**options: Any) -> None:
    """Certify isolation: what each partition holds beside a busy neighbour."""
    with import_module("spacetime.terminal.progress").working("loading PyTorch"):
        command = import_module("spacetime.commands.verify")
    given = {name: value for name in BOUNDS if (value := options.pop(name)) is not None}
    command.run(command.VerifyCommand(bounds=command.Bounds(**given), **options))
