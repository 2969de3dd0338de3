"""The command that makes plans."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, OUT_FILE, NumberRange

PLANNERS = (
    "spacetime",
    *("parvagpu", "gpulet", "sbp", "greedy", "self-tuning", "ideal", "igniter"),
    *("paris", "homogeneous", "random"),
    *("exact", "mig-only", "whole-gpu", "time-only", "mps-default"),
)
EXPORTS = ("mig-parted", "nvidia-smi", "mps", "dra")


@click.command(short_help="From profiles and rates to partitions and devices.")
@click.argument("workload", type=FILE)
@click.option("--profiles", type=FILE, required=True, help="CSV of what was measured.")
@click.option("--device", help="Such as a100-80gb, or a file of facts. Default: the profiles'.")
@click.option("--planner", default="spacetime", show_default=True, help=", ".join(PLANNERS))
@click.option("--gpus", type=click.IntRange(1), help="How many devices there are.")
@click.option("--max-procs", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option(
    "--max-utilisation",
    type=NumberRange(0.01, 1),
    default=0.9,
    show_default=True,
    help="How busy a partition may be; the rest absorbs random arrivals.",
)
@click.option(
    "--set",
    "choices",
    multiple=True,
    metavar="NAME=VALUE",
    help="A choice of the planner, such as slo_factor=0.5. May be repeated.",
)
@click.option(
    "--calm",
    is_flag=True,
    help="Smaller batches where they answer sooner at random arrivals; costs headroom.",
)
@click.option(
    "--guard",
    is_flag=True,
    help="Planner paris: simulate layouts of one size beside it and keep the best.",
)
@click.option(
    "--interference",
    type=FILE,
    help="Measured pairs, or a certificate of verify: what neighbours cost, planned and checked.",
)
@click.option(
    "--steady",
    is_flag=True,
    help="Requests come at steady gaps, as papers assume; else the plan is simulated, and planner "
    "spacetime keeps 99 % of each tenant in time.",
)
@click.option(
    "--attainment",
    type=NumberRange(0.01, 1),
    help="Refuse unless every tenant has this part in time when simulated, such as 0.999.",
)
@click.option(
    "--export",
    "form",
    type=click.Choice(EXPORTS),
    help="Print what another tool takes instead of a table; nothing is executed.",
)
@click.option("--explain", is_flag=True, help="Say for each tenant where it runs, and why.")
@click.option(
    "--advise",
    is_flag=True,
    help="What each tenant needs alone, and whether sharing devices pays; no plan is printed.",
)
@click.option("--out", type=OUT_FILE, help="Where to write the plan.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan instead of a table.")
def plan(**options: Any) -> None:
    """From profiles, rates and objectives to partitions, batches and devices."""
    command = import_module("spacetime.commands.plan")
    command.run(command.PlanCommand(**options))
