"""The commands that judge plans in virtual time."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli_options import FILE, Number
from spacetime.core import PRESETS


@click.command()
@click.argument("plan", type=FILE)
@click.option("--workload", type=FILE, required=True, help="YAML or JSON; its rates may differ.")
@click.option("--profiles", type=FILE, required=True, help="CSV; where latencies come from.")
@click.option("--policy", type=click.Choice(list(PRESETS)), help="Default: the plan's own.")
@click.option("--duration", type=Number(0.001, 1e6), help="Seconds; default 60, or a whole trace.")
@click.option("--replications", type=click.IntRange(1, 10_000), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Default: the workload's.")
@click.option("--rate-scale", type=Number(1e-6, 1e6), default=1.0, show_default=True)
@click.option("--late", is_flag=True, help="Answer late rather than drop at the deadline.")
@click.option(
    "--highest",
    type=Number(0.01, 1),
    help="Search the highest rate that keeps this attainment of every tenant, such as 0.99.",
)
@click.option("--timeline", type=FILE, help="Where to write Chrome trace events.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def simulate(**options: Any) -> None:
    """Run a plan of many devices under a workload, in virtual time."""
    import_module("spacetime.simulation").from_options(**options)
