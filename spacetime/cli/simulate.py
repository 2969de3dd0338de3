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
@click.option(
    "--workload",
    type=FILE,
    required=True,
    help="YAML or JSON file; its rates may differ from the plan's.",
)
@click.option("--profiles", type=FILE, required=True, help="CSV file of latencies.")
@click.option("--policy", type=click.Choice(list(PRESETS)), help="Default: the plan's own.")
@click.option("--device", help="File of the device's facts, where it is one of your own.")
@click.option(
    "--duration",
    type=NumberRange(0.001, 1e6),
    help="Simulated seconds. Default: 60, or a whole trace.",
)
@click.option(
    "--replications",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="How often it is simulated, with other arrivals each time.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Default: the workload's.")
@click.option(
    "--rate-scale",
    type=NumberRange(1e-6, 1e6),
    default=1.0,
    show_default=True,
    help="What the workload's rates are multiplied by.",
)
@click.option("--late", is_flag=True, help="Answer late rather than drop at the deadline.")
@click.option(
    "--highest",
    type=NumberRange(0.01, 1),
    help="Search for the highest rates at which every tenant keeps this part of its requests in "
    "time, such as 0.99.",
)
@click.option("--timeline", type=OUT_FILE, help="File to write Chrome trace events to.")
@click.option(
    "--controller", is_flag=True, help="Let the rates change, and a controller replace the plan."
)
@click.option(
    "--rates",
    type=click.Choice(("diurnal", "bursty", "steady")),
    default="diurnal",
    show_default=True,
    help="With --controller: how the rates change.",
)
@click.option(
    "--planner",
    "maker",
    type=click.Choice(list(PLANNERS)),
    default="spacetime",
    show_default=True,
    metavar="NAME",
    help="With --controller: the planner of new plans, a name as in `plan --planner`.",
)
@click.option(
    "--period",
    type=NumberRange(0.001, 1e6),
    default=5.0,
    show_default=True,
    help="With --controller: seconds from one look at the rates to the next.",
)
@click.option(
    "--start-ms",
    type=NumberRange(0, 1e9),
    default=12_000.0,
    show_default=True,
    help="With --controller: ms until a new partition serves.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1),
    help="With --controller: the most devices at once, also during a move.",
)
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
