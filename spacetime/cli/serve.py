"""The command that serves a workload's tenants over the network."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from spacetime.cli.options import FILE, ISOLATION, NumberRange
from spacetime.policy import PRESETS

PORT = click.IntRange(0, 65535)
MANY = click.IntRange(1, 1_000_000)


@click.command(short_help="Serve a workload's tenants over HTTP and gRPC.")
@click.argument("workload", type=FILE)
@click.option("--plan", type=FILE, help="Run this plan; it is checked against --profiles.")
@click.option(
    "--profiles", type=FILE, help="CSV; without --plan the default planner makes one from them."
)
@click.option("--gpu", type=click.IntRange(0), help="Which device of a plan of several this is.")
@click.option("--max-procs", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--max-utilisation", type=NumberRange(0.01, 1), default=0.9, show_default=True,
              help="What the plan was made with; it is checked by the same.")  # fmt: skip
@click.option("--policy", type=click.Choice(list(PRESETS)),
              help="Default: the plan's own, or space-time without a plan.")  # fmt: skip
@click.option(
    "--controller", is_flag=True, help="Plan anew as rates drift, and move while serving."
)
@click.option("--period", type=NumberRange(0.01, 3600), default=1.0, show_default=True,
              help="Seconds between the controller's looks.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or fake:h200.")
@ISOLATION
@click.option("--max-batch", type=click.IntRange(1, 256), help="Samples of a launch.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback: public.")
@click.option("--http-port", type=PORT, default=8000, show_default=True, help="0 takes any.")
@click.option("--grpc-port", type=PORT, default=8001, show_default=True, help="0 takes any.")
@click.option("--metrics-port", type=PORT, default=8002, show_default=True, help="0 takes any.")
@click.option("--token-file", type=FILE, help="Bearer tokens that may ask, one a line.")
@click.option("--tls-cert", type=FILE, help="PEM; with --tls-key.")
@click.option("--tls-key", type=FILE, help="PEM; with --tls-cert.")
@click.option(
    "--body-limit", type=NumberRange(0.001, 1e5), default=64, show_default=True, help="MiB."
)
@click.option("--tensor-limit", type=MANY, default=64, show_default=True,
              help="Inputs, and outputs, of a request.")  # fmt: skip
@click.option("--connection-limit", type=MANY, default=1000, show_default=True)
@click.option("--queue-limit", type=MANY, default=1024, show_default=True,
              help="Waiting requests of a tenant; more are refused.")  # fmt: skip
@click.option("--read-timeout", type=NumberRange(0.01, 3600), default=30, show_default=True,
              help="Seconds in which a request must arrive.")  # fmt: skip
@click.option("--audit", type=float, default=0.0, show_default=True,
              help="Part of the answers, 0 to 1, compared with the model run alone.")  # fmt: skip
@click.option("--audit-stop", is_flag=True,
              help="Where one differs, its family's models answer alone from then on.")  # fmt: skip
@click.option("--log-requests", is_flag=True, help="A line of JSON for each request.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON.")
def serve(**options: Any) -> None:
    """Serve a workload's tenants: Open Inference Protocol v2 over HTTP and gRPC."""
    command = import_module("spacetime.commands.serve")
    command.run(command.ServeCommand(**options))
