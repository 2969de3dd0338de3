"""The command that serves a workload's tenants over the network."""

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
    PERIOD,
    PLAN,
    POLICY,
    PROFILES,
    NumberRange,
)

PORT = click.IntRange(0, 65535)
MANY = click.IntRange(1, 1_000_000)


@click.command(short_help="Serve a workload's tenants over HTTP and gRPC.")
@click.argument("workload", type=FILE)
@PLAN
@PROFILES
@GPU
@MAX_PROCS
@MAX_UTILISATION
@POLICY
@click.option(
    "--controller",
    is_flag=True,
    help="Make a new plan as rates drift, and change to it while serving.",
)
@PERIOD
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or fake:h200.")
@ISOLATION
@click.option("--max-batch", type=click.IntRange(1, 256), help="The most samples of one launch.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; one that is not loopback may be public.",
)
@click.option(
    "--http-port", type=PORT, default=8000, show_default=True, help="0 takes any free port."
)
@click.option(
    "--grpc-port", type=PORT, default=8001, show_default=True, help="0 takes any free port."
)
@click.option(
    "--metrics-port", type=PORT, default=8002, show_default=True, help="0 takes any free port."
)
@click.option("--token-file", type=FILE, help="File of bearer tokens that are let in, one a line.")
@click.option("--tls-cert", type=FILE, help="Certificate in PEM; needs --tls-key.")
@click.option("--tls-key", type=FILE, help="Key in PEM; needs --tls-cert.")
@click.option(
    "--body-limit",
    type=NumberRange(0.001, 1e5),
    default=64,
    show_default=True,
    help="The largest body of a request, in MiB.",
)
@click.option(
    "--tensor-limit",
    type=MANY,
    default=64,
    show_default=True,
    help="The most inputs, and the most outputs, of a request.",
)
@click.option(
    "--connection-limit",
    type=MANY,
    default=1000,
    show_default=True,
    help="The most connections at once.",
)
@click.option(
    "--queue-limit",
    type=MANY,
    default=1024,
    show_default=True,
    help="How many requests of a tenant may wait; more are refused.",
)
@click.option(
    "--read-timeout",
    type=NumberRange(0.01, 3600),
    default=30,
    show_default=True,
    help="Seconds in which a request must have arrived whole.",
)
@click.option(
    "--audit",
    type=float,
    default=0.0,
    show_default=True,
    help="Part of the answers, 0 to 1, that is compared with the model run alone.",
)
@click.option(
    "--audit-stop",
    is_flag=True,
    help="After an answer that differs, the models of its family answer alone from then on.",
)
@click.option("--log-requests", is_flag=True, help="Write a line of JSON for each request.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON.")
def serve(**options: Any) -> None:
    """Serve a workload's tenants: Open Inference Protocol v2 over HTTP and gRPC."""
    command = import_module("spacetime.commands.serve")
    command.run(command.ServeCommand(**options))
