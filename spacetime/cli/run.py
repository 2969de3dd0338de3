"""The command that runs a workload live."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, ISOLATION, OUT, NumberRange
from spacetime.policy import PRESETS


@click.command()
@click.argument("workload", type=FILE)
@click.option("--plan", type=FILE, help="Run this plan; it is checked against --profiles.")
@click.option(
    "--profiles", type=FILE, help="CSV; without --plan the default planner makes one from them."
)
@click.option("--gpu", type=click.IntRange(0), help="Which device of a plan of several this is.")
@click.option(
    "--policy",
    type=click.Choice(list(PRESETS)),
    help="Default: the plan's own, or space-time without a plan.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N, fake:h200 or auto.")
@ISOLATION
@click.option("--duration", type=NumberRange(0.001, 1e6), default=10.0, show_default=True,
              help="Seconds of arrivals; a trace may end sooner.")  # fmt: skip
@click.option("--max-procs", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option(
    "--max-utilisation",
    type=NumberRange(0.01, 1),
    default=0.9,
    show_default=True,
    help="What the plan was made with; it is checked by the same.",
)
@click.option(
    "--controller", is_flag=True, help="Plan anew as rates drift, and move while running."
)
@click.option("--period", type=NumberRange(0.01, 3600), default=1.0, show_default=True,
              help="Seconds between the controller's looks.")  # fmt: skip
@click.option("--explain", is_flag=True, help="Say what runs where, by which program, and why.")
@click.option("--out", type=OUT, help="Folder for report.json, timeline.json and run.recording.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def run(**options: Any) -> None:
    """Run a workload's models live, its arrivals in an open loop.

    Models are package.module:factory. Ctrl-C ends it with the report so far, and exit status 130.
    """
    command = import_module("spacetime.commands.run")
    command.run(command.RunCommand(**options))
