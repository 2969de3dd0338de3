"""The command that measures: one topic for each `bench_<topic>` module of the benchmarks."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import click

from spacetime.cli.options import OUT, NumberRange


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


@click.group(cls=BenchGroup)
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
    item, several = _item_type(parameter.annotation)
    ranges = {int: click.IntRange(0 if name == "seed" else 1), float: NumberRange(0), Path: OUT}
    kind = ranges.get(item, item)
    if several:
        return click.Option(
            [flag, name],
            type=kind,
            multiple=True,
            default=default,
            help="May be repeated.",
            callback=lambda ctx, param, value: value or default,
        )
    return click.Option([flag, name], type=kind, default=default, show_default=True)


def _item_type(annotation: Any) -> tuple[Any, bool]:
    """`int` of `int`, of `Sequence[int]` and of either `| None`; and whether it is a sequence."""
    kind = get_args(annotation)[0] if isinstance(annotation, UnionType) else annotation
    several = get_origin(kind) in {Sequence, tuple}
    return (get_args(kind)[0] if several else kind), several
