"""The command that runs a workload live."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import (
    FILE,
    GPU,
    ISOLATION,
    MAX_PROCS,
    MAX_UTILISATION,
    OUT,
    PERIOD,
    PLAN,
    POLICY,
    PROFILES,
    NumberRange,
)


@click.command(short_help="Run a workload's models on a device, live.")
@click.argument("workload", type=FILE)
@PLAN
@PROFILES
@GPU
@POLICY
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N, fake:h200 or auto.")
@ISOLATION
@click.option(
    "--duration",
    type=NumberRange(0.001, 1e6),
    default=10.0,
    show_default=True,
    help="For how many seconds requests arrive; a trace may end sooner.",
)
@MAX_PROCS
@MAX_UTILISATION
@click.option(
    "--controller",
    is_flag=True,
    help="Make a new plan as rates drift, and change to it while running.",
)
@PERIOD
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
