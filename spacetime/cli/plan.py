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


@click.command(short_help="Plan which tenants share which devices.")
@click.argument("workload", type=FILE)
@click.option(
    "--profiles", type=FILE, required=True, help="CSV file of latencies, measured or predicted."
)
@click.option(
    "--device",
    help="What to plan for: a name such as a100-80gb, or a file. Default: the profiles' device.",
)
@click.option(
    "--planner", default="spacetime", show_default=True, help=f"Who plans: {', '.join(PLANNERS)}."
)
@click.option(
    "--gpus", type=click.IntRange(1), help="How many devices there are. Default: as many as needed."
)
@click.option(
    "--max-procs",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="The most processes side by side on a partition.",
)
@click.option(
    "--max-utilisation",
    type=NumberRange(0.01, 1),
    default=0.9,
    show_default=True,
    help="The part of the time a partition may be busy; the rest absorbs random arrivals.",
)
@click.option(
    "--set",
    "choices",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the planner, such as slo_factor=0.5. May be repeated.",
)
@click.option(
    "--calm",
    is_flag=True,
    help="Take smaller batches where they answer sooner at random arrivals; costs headroom.",
)
@click.option(
    "--guard",
    is_flag=True,
    help="With planner paris: simulate layouts of one partition size too, and keep the best.",
)
@click.option(
    "--interference",
    type=FILE,
    help="A file of what neighbours cost each other, measured pairs or a certificate of `spacetime "
    "verify`; the plan counts it and is checked with it.",
)
@click.option(
    "--steady",
    is_flag=True,
    help="Assume that requests come at steady gaps, as papers do. Otherwise the plan is simulated, "
    "and planner spacetime keeps 99 % of each tenant's requests in time.",
)
@click.option(
    "--attainment",
    type=NumberRange(0.01, 1),
    help="Refuse a plan unless each tenant has this part of its requests in time when simulated, "
    "such as 0.999.",
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
    help="Print what each tenant needs alone and whether sharing devices pays, and no plan.",
)
@click.option("--out", type=OUT_FILE, help="File to write the plan to.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan instead of a table.")
def plan(**options: Any) -> None:
    """Plan which devices, partitions and batches serve a workload within its objectives."""
    command = import_module("spacetime.commands.plan")
    command.run(command.PlanCommand(**options))
