"""The command that runs a plan in virtual time."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, OUT_FILE, NumberRange
from spacetime.errors import UnsupportedError
from spacetime.planners.registry import PLANNERS
from spacetime.policy import PRESETS

MOVING = ("rates", "maker", "period", "start_ms", "gpus")  # options of --controller
FIXED = {"replications": 5, "rate_scale": 1.0, "late": False, "highest": None, "timeline": None}


@click.command()
@click.argument("plan", type=FILE)
@click.option("--workload", type=FILE, required=True, help="YAML or JSON; its rates may differ.")
@click.option("--profiles", type=FILE, required=True, help="CSV; where latencies come from.")
@click.option("--policy", type=click.Choice(list(PRESETS)), help="Default: the plan's own.")
@click.option("--device", help="A file with its facts, where it is one of your own.")
@click.option(
    "--duration", type=NumberRange(0.001, 1e6), help="Seconds; default 60, or a whole trace."
)
@click.option("--replications", type=click.IntRange(1, 10_000), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Default: the workload's.")
@click.option("--rate-scale", type=NumberRange(1e-6, 1e6), default=1.0, show_default=True)
@click.option("--late", is_flag=True, help="Answer late rather than drop at the deadline.")
@click.option(
    "--highest",
    type=NumberRange(0.01, 1),
    help="Search the highest rate that keeps this attainment of every tenant, such as 0.99.",
)
@click.option("--timeline", type=OUT_FILE, help="Where to write Chrome trace events.")
@click.option("--controller", is_flag=True, help="Rates change; a controller moves the plan.")
@click.option("--rates", type=click.Choice(("diurnal", "bursty", "steady")), default="diurnal",
              show_default=True, help="How rates change, with --controller.")  # fmt: skip
@click.option("--planner", "maker", type=click.Choice(list(PLANNERS)), default="spacetime",
              show_default=True, metavar="NAME",
              help="Who plans anew, with --controller: one of `plan --planner`'s.")  # fmt: skip
@click.option("--period", type=NumberRange(0.001, 1e6), default=5.0, show_default=True,
              help="Seconds between looks, with --controller.")  # fmt: skip
@click.option("--start-ms", type=NumberRange(0, 1e9), default=12_000.0, show_default=True,
              help="Until opened partitions serve.")  # fmt: skip
@click.option("--gpus", type=click.IntRange(1), help="With --controller: devices, shadows counted.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def simulate(*, controller: bool, **options: Any) -> None:
    """Run a plan of many devices under a workload, in virtual time."""
    moving = {name: options.pop(name) for name in MOVING}
    if not controller:
        command = import_module("spacetime.commands.simulate")
        command.run(command.SimulateCommand(**options))
        return
    for name, default in FIXED.items():
        if options.pop(name) != default:
            raise UnsupportedError(f"--{name.replace('_', '-')}: does not go with --controller")
    command = import_module("spacetime.commands.simulate_controlled")
    command.run(command.SimulateControlledCommand(**options, **moving))
