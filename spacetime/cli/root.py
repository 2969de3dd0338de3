"""The command line. Commands import what they need when they run, so that help is instant.

Exit status: 0 done; 2 bad input, one line naming the field; 1 a fault, one line; 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import ast
import errno
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import click

from spacetime import __version__
from spacetime.cli.mig import mig
from spacetime.cli.options import OUT, Number
from spacetime.cli.plan import plan
from spacetime.cli.profile import profile
from spacetime.cli.run import run
from spacetime.cli.serve import serve, top
from spacetime.cli.simulate import compare, replay, simulate
from spacetime.errors import (
    InfeasibleError,
    InvalidInput,
    PlanError,
    ProfileError,
    RecordingError,
    SpacetimeError,
    UnsupportedError,
)
from spacetime.interruption import INTERRUPTED, end_now, obeyed
from spacetime.workload.workload import WorkloadError

MODELS = ("digits", "resnet", "mobilenet", "transformer", "all")
KINDS_OF_WORK = ("compute", "cache", "memory")
EXTRAS = dict.fromkeys(
    ("uvicorn", "httptools", "uvloop", "grpc", "google", "prometheus_client"), "serve"
)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
BAD_INPUT = (
    InfeasibleError, InvalidInput, PlanError, ProfileError, RecordingError, UnsupportedError,
    WorkloadError,
)  # fmt: skip


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    no_args_is_help=True,
)
@click.version_option(__version__)
@click.option("--cflags", is_flag=True, help="Print flags to compile a C program with.")
@click.option("--libs", is_flag=True, help="Print flags to link it with.")
@click.option("--cmake-dir", is_flag=True, help="Print the folder of spacetimeConfig.cmake.")
@click.option("--pkgconfig-dir", is_flag=True, help="Print the folder of spacetime.pc.")
@click.pass_context
def cli(ctx: click.Context, /, **asked: bool) -> None:
    """Many neural networks share one accelerator in space and in time."""
    if any(asked.values()):
        embed = import_module("spacetime.commands.embed")
        click.echo(" ".join(getattr(embed, name)() for name, wanted in asked.items() if wanted))
    elif ctx.invoked_subcommand is None:
        raise click.UsageError("Missing command.", ctx)


@cli.command()
@click.option("--tenants", type=click.IntRange(1, 256), default=8, show_default=True,
              help="How many models share the device.")  # fmt: skip
@click.option(
    "--seconds",
    type=Number(0.1, 3600),
    default=10.0,
    show_default=True,
    help="How long each policy runs, in seconds.",
)
@click.option("--model", type=click.Choice(MODELS), default="digits", show_default=True,
              help="What they are.")  # fmt: skip
@click.option(
    "--load",
    type=Number(0.01, 100),
    default=3.5,
    show_default=True,
    help="Offered requests, as a multiple of what time-only can answer.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of weights and arrivals.")  # fmt: skip
@click.option("--out", type=OUT, default=Path("out"), show_default=True, help="Where files go.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of tables.")
def demo(**options: Any) -> None:
    """Run real models under three policies and compare them."""
    with import_module("spacetime.terminal.progress").working("loading PyTorch"):
        found = import_module("spacetime.demo.run")
    found.run(**options)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(*, as_json: bool) -> None:
    """Say what this machine offers and what this build can use."""
    doctor = import_module("spacetime.devices.doctor")
    facts: dict[str, object] = doctor.facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        doctor.show(facts)


@cli.command(short_help="Certify isolation between partitions.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu or cuda:N; a fake one is not certified.",
)
@click.option("--lanes", type=click.IntRange(2), default=2, show_default=True,
              help="How many partitions.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True,
              help="Of every pair; the median counts.")  # fmt: skip
@click.option("--launches", type=click.IntRange(5), default=150, show_default=True,
              help="Of a probe, about half a millisecond each.")  # fmt: skip
@click.option("--probe", type=click.Choice(KINDS_OF_WORK), multiple=True, help="May be repeated.")
@click.option("--stressor", type=click.Choice(KINDS_OF_WORK), multiple=True,
              help="May be repeated.")  # fmt: skip
@click.option("--private-held", type=Number(0, 1), help="What private pairs must hold.")
@click.option("--private-p99", type=Number(1), help="Largest inflation of their p99.")
@click.option("--shared-held", type=Number(0, 1), help="What pairs that share a resource hold.")
@click.option("--shared-p99", type=Number(1), help="Largest inflation of their p99.")
@click.option("--out", type=OUT, help="Folder for the JSON and the picture.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def verify(**options: Any) -> None:
    """Certify isolation: what each partition holds beside a busy neighbour."""
    with import_module("spacetime.terminal.progress").working("loading PyTorch"):
        found = import_module("spacetime.verify.certificate")
    found.from_options(**options)


for command in (plan, profile, simulate, compare, replay, run, mig, serve, top):
    cli.add_command(command)


class BenchGroup(click.Group):
    """One command for each `bench_<topic>` module; its options are those of the module's `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_bench_sources())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _bench_sources():
            return None
        module = import_module(f"spacetime.benchmarks.bench_{cmd_name}")
        doc = "\n\n".join(filter(None, (inspect.getdoc(module), inspect.getdoc(module.run))))
        return _bench_command(cmd_name, module.run, doc)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Read, not imported: importing every benchmark for its first line takes seconds.
        topics = [
            (topic, (ast.get_docstring(ast.parse(source.read_text())) or "").split("\n")[0])
            for topic, source in sorted(_bench_sources().items())
        ]
        with formatter.section("Topics"):
            formatter.write_dl(topics or [("none", "this installation has no benchmarks")])


@cli.group(cls=BenchGroup)
def bench() -> None:
    """Measure: a table, a picture and JSON for each topic."""


def _bench_sources() -> dict[str, Path]:
    spec = find_spec("spacetime.benchmarks")
    folders = map(Path, spec.submodule_search_locations or ()) if spec else ()
    files = (file for folder in folders for file in folder.glob("bench_*.py"))
    return {file.stem.removeprefix("bench_"): file for file in files}


def _bench_command(name: str, run: Callable[..., None], doc: str | None) -> click.Command:
    parameters = inspect.signature(run, eval_str=True).parameters.values()
    return click.Command(
        name, params=[_option(parameter) for parameter in parameters], callback=run, help=doc
    )


def _option(parameter: inspect.Parameter) -> click.Option:
    """The command-line option of one keyword of `run`: flags for bools, repeatable sequences."""
    name, default = parameter.name, parameter.default
    default = None if default is inspect.Parameter.empty else default
    flag = "--json" if name == "as_json" else f"--{name.replace('_', '-')}"
    if parameter.annotation is bool:
        return click.Option([flag, name], is_flag=True, default=bool(default))
    one, several = _item_type(parameter.annotation)
    ranges = {int: click.IntRange(0 if name == "seed" else 1), float: Number(0), Path: OUT}
    kind = ranges.get(one, one)
    if several:
        return click.Option(
            [flag, name], type=kind, multiple=True, default=default, help="May be repeated.",
            callback=lambda ctx, param, value: value or default,
        )  # fmt: skip
    return click.Option([flag, name], type=kind, default=default, show_default=True)


def _item_type(annotation: Any) -> tuple[Any, bool]:
    """`int` of `int`, of `Sequence[int]` and of either `| None`; and whether it is a sequence."""
    kind = get_args(annotation)[0] if isinstance(annotation, UnionType) else annotation
    several = get_origin(kind) in {Sequence, tuple}
    return (get_args(kind)[0] if several else kind), several


def main() -> None:
    """The `spacetime` command: run it and exit with the status above."""
    if not sys.stdout.isatty():  # a file has no width; rich would cut numbers at 80 columns
        os.environ.setdefault("COLUMNS", "160")
    if (ended := status()) == INTERRUPTED:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        end_now(ended)
    sys.exit(ended)


def status() -> int:
    """Runs the command and tells what went wrong in a line; the exit status."""
    with obeyed() as interrupted:
        try:
            cli.main(prog_name="spacetime", standalone_mode=False)
            sys.stdout.flush()  # here, where a full disk can still be told
        except BaseException as error:
            # Ctrl-C in the middle of an import comes out as whatever that import made of it.
            if interrupted() or isinstance(error, click.Abort | KeyboardInterrupt):
                return _complain("interrupted", INTERRUPTED)
            return _told(error)
    return 0


def _told(error: BaseException) -> int:
    """Tells an error in a line, and the status; raises it again where that is a fault of ours."""
    if isinstance(error, click.ClickException):
        return _misused(error)
    if isinstance(error, BAD_INPUT):
        return _complain(error, 2)
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, ModuleNotFoundError):
        top = (error.name or "spacetime").split(".")[0]
        if top != "spacetime":
            extra = EXTRAS.get(top, "demo")
            return _complain(f"this needs {error.name}: pip install 'spacetime[{extra}]'", 2)
    elif isinstance(error, SpacetimeError):
        return _complain(error, 1)
    raise error


def _misused(error: click.ClickException) -> int:
    """What was wrong with the words of the command; without any the help is shown."""
    if not isinstance(error, click.UsageError) or "NoArgs" in type(error).__name__:
        error.show()
        return error.exit_code
    words = " ".join(error.format_message().split()).rstrip(".")
    where = "spacetime" if error.ctx is None else error.ctx.command_path
    return _complain(f"{words}; see {where} --help", error.exit_code)


def _system(error: OSError) -> int:
    """A file that cannot be, or a disk that is full; a reader of our output who has enough."""
    if error.errno in NO_ROOM or error.errno == errno.EPIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at exit again
        if error.errno == errno.EPIPE:
            return 1
        return _complain(f"output: {error.strerror}; make room, or write elsewhere", 1)
    if error.filename is None:
        raise error
    return _complain(f"{error.filename}: {error.strerror}", 2)


def _complain(problem: object, status: int) -> int:
    click.echo(f"spacetime: {problem}", err=True)
    return status
