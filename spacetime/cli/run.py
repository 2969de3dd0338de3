"""The command that runs a workload live."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, ISOLATION, OUT, NumberRange
from spacetime.policy import PRESETS


@click.command(short_help="Run a workload's models on a device, live.")
@click.argument("workload", type=FILE)
@click.option(
    "--plan", type=FILE, help="JSON file of a plan to run; it is checked against --profiles."
)
@click.option(
    "--profiles", type=FILE, help="CSV file of latencies; without --plan, a plan is made from them."
)
@click.option(
    "--gpu", type=click.IntRange(0), help="Which of the plan's devices this one is, by its id."
)
@click.option(
    "--policy",
    type=click.Choice(list(PRESETS)),
    help="Default: the plan's own, or space-time without a plan.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N, fake:h200 or auto.")
@ISOLATION
@click.option(
    "--duration",
    type=NumberRange(0.001, 1e6),
    default=10.0,
    show_default=True,
    help="For how many seconds requests arrive; a trace may end sooner.",
)
@click.option(
    "--max-procs",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="The most processes side by side on a partition, as the plan was made with.",
)
@click.option(
    "--max-utilisation",
    type=NumberRange(0.01, 1),
    default=0.9,
    show_default=True,
    help="How busy a partition may be, as the plan was made with.",
)
@click.option(
    "--controller",
    is_flag=True,
    help="Make a new plan as rates drift, and change to it while running.",
)
@click.option(
    "--period",
    type=NumberRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from one look of the controller to the next.",
)
@click.option("--explain", is_flag=True, help="Say what runs where, by which program, and why.")
@click.option("--out", type=OUT, help="Folder for report.json, timeline.json and run.recording.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def run(**options: Any) -> None:
    """Run a workload's models on a device, with requests sent at its arrival times.

    Models are given as package.module:factory. Ctrl-C ends the run with the report so far and exit
    status 130.
    """
    command = import_module("spacetime.commands.run")
    command.run(command.RunCommand(**options))
