"""The command that decides a recorded run anew."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import click

from spacetime.cli.options import FILE


@click.command(short_help="Does a recorded run decide the same again?")
@click.argument("recording", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a line.")
def replay(*, recording: Path, as_json: bool) -> None:
    """Does a recorded run decide the same again? Status 1 and the first difference if not."""
    module = import_module("spacetime.reports.recording")
    result = module.replay(module.Recording.load(recording))
    if as_json:
        click.echo(json.dumps({"same": result.same, **asdict(result)}, indent=2))
    elif result.same:
        cut = "" if result.complete else "; the recording stops before the run did"
        click.echo(
            f"same: {result.requests} requests, {result.events} events, {result.starts} starts, "
            f"{result.drops} drops in {result.span_ns / 1e9:.3f} s{cut}"
        )
    result.check()
