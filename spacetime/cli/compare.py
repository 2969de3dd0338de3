"""The command that compares planners on scenarios."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from spacetime.cli.options import FILE, OUT, NumberRange
from spacetime.planners.registry import PLANNERS


@click.command(short_help="Compare planners on scenarios.")
@click.argument("scenarios", type=click.Path(path_type=Path))
@click.option("--profiles", type=FILE, required=True, help="CSV; of one device.")
@click.option("--device", help="Such as a100-80gb, or a file. Default: the profiles'.")
@click.option(
    "--planner",
    "planners",
    type=click.Choice(list(PLANNERS)),
    multiple=True,
    metavar="NAME",
    help=f"May be repeated; default all: {', '.join(PLANNERS)}.",
)
@click.option("--gpus", type=click.IntRange(1), help="How many devices there are; default any.")
@click.option("--max-procs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--max-utilisation", type=NumberRange(0.01, 1), default=0.9, show_default=True)
@click.option(
    "--duration",
    type=NumberRange(0.001, 1e6),
    default=30.0,
    show_default=True,
    help="Seconds a plan is simulated.",
)
@click.option("--replications", type=click.IntRange(1, 10_000), default=3, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Default: the workloads'.")
@click.option("--out", type=OUT, help="Folder for compare.json and compare.png.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def compare(**options: Any) -> None:
    """Compare planners on scenarios: a folder of workloads, one workload, or a CSV."""
    command = import_module("spacetime.commands.compare")
    command.run(command.CompareCommand(**options))
