"""The command line. Commands import what they need when they run, so that help is instant.

Exit status: 0 done; 2 bad input, one line naming the field; 1 a fault, one line; 130 interrupted,
143 terminated.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from spacetime.cli.bench import bench
from spacetime.cli.compare import compare
from spacetime.cli.demo import demo
from spacetime.cli.doctor import doctor
from spacetime.cli.mig import mig
from spacetime.cli.plan import plan
from spacetime.cli.profile import profile
from spacetime.cli.replay import replay
from spacetime.cli.run import run
from spacetime.cli.serve import serve
from spacetime.cli.simulate import simulate
from spacetime.cli.top import top
from spacetime.cli.verify import verify
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
from spacetime.version import __version__
from spacetime.workload.workload import WorkloadError

EXTRAS = dict.fromkeys(
    ("uvicorn", "httptools", "uvloop", "grpc", "google", "prometheus_client"), "serve"
) | {"scipy": "plan", "safetensors": "live", "pynvml": "mig", "triton": "cuda", "cupy": "cuda"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
COMMANDS = (
    *(bench, compare, demo, doctor, mig, plan, profile, replay, run, serve, simulate, top),
    verify,
)
BAD_INPUT = (
    *(InfeasibleError, InvalidInput, PlanError, ProfileError, RecordingError),
    *(UnsupportedError, WorkloadError),
)


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


for command in COMMANDS:
    cli.add_command(command)


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
