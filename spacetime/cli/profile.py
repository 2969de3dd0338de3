"""The command that makes profiles: measures, predicts, or brings in what others measured."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from spacetime.cli.options import OUT_FILE

FORMATS = ("parvagpu", "gpulet")
KINDS = ("mig", "sm", "mps")
DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")
ANY = click.Path(path_type=Path)
LARGEST = 1_000_000
EXTENT = ("units", "batches", "procs")
DEFAULTS: dict[str, Any] = {
    "units": (),
    "batches": (),
    "procs": (1,),
    "kind": None,
    "dtype": None,
    "fused": (1,),
    "rounds": 5,
    "fresh": False,
}


class WholeNumbers(click.ParamType):  # type: ignore[type-arg]  # generic in some versions only
    """Whole numbers from 1, separated by commas: sorted, each once."""

    name = "N,N,..."

    def __init__(self, most: int = LARGEST) -> None:
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """A tuple of ints; fails with one line for anything else."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in value.split(",")]
        # ASCII digits only: int() also takes others, and underscores.
        if not all(word.isascii() and word.isdigit() for word in words):
            self.fail(f"{value!r:.40} must be whole numbers such as 1,2,4", param, ctx)
        numbers = sorted({int(word[:9]) for word in words})
        if numbers[0] < 1 or numbers[-1] > self.most:
            self.fail(f"{value!r:.40} must be from 1 to {self.most}", param, ctx)
        return tuple(numbers)


@click.command(short_help="Measure models, predict or import profiles.")
@click.argument("path", type=ANY, metavar="WORKLOAD")
@click.option("--device", help="Measure here: cpu, cuda:0, fake:h200.")
@click.option(
    "--predict",
    metavar="DEVICE",
    help="Predict for a device such as h200-141gb, or a file with its facts.",
)
@click.option("--import", "form", type=click.Choice(FORMATS), help="Whose format WORKLOAD has.")
@click.option("--out", type=OUT_FILE, required=True, help="Where to write the profiles.")
@click.option("--units", type=WholeNumbers(), default=(), help="Sizes of partitions.")
@click.option(
    "--batches", type=WholeNumbers(256), default=(), help="Default: the tenants' own, or 1 to 32."
)
@click.option(
    "--procs", type=WholeNumbers(48), default=(1,), help="Processes side by side. Default: 1."
)
@click.option("--kind", type=click.Choice(KINDS), help="Of predicted partitions.")
@click.option("--dtype", type=click.Choice(DTYPES), help="To predict for. Default: the weights'.")
@click.option(
    "--fused", type=WholeNumbers(256), default=(1,), help="Tenants in a launch. Default: 1."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--fresh", is_flag=True, help="Measure again what is in the file already.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
def profile(*, device: str | None, predict: str | None, form: str | None, **options: Any) -> None:
    """Measure the models of a workload on a device, or predict them; or bring in profiles.

    Measuring resumes where it was interrupted: every round is on disk beside the profile.
    """
    if sum(way is not None for way in (device, predict, form)) != 1:
        raise click.UsageError("give one of --device, --predict and --import")
    if form is not None:
        command = import_module("spacetime.commands.profile_import")
        command.run(command.ImportCommand(form=form, **_taken("--import", options, ())))
        return
    command = import_module("spacetime.commands.profile")
    if predict is not None:
        taken = _taken("--predict", options, (*EXTENT, "kind", "dtype"))
        command.predict(command.PredictCommand(predict=predict, **taken))
    else:
        taken = _taken("--device", options, (*EXTENT, "fused", "rounds", "fresh"))
        command.measure(command.MeasureCommand(device=device, **taken))


def _taken(way: str, options: dict[str, Any], taken: tuple[str, ...]) -> dict[str, Any]:
    """The options that a way of making profiles takes; refuses another one that was given, which
    would do nothing."""
    for name, default in DEFAULTS.items():
        if name not in taken and options[name] != default:
            raise click.UsageError(f"--{name} has no meaning with {way}")
    return {name: options[name] for name in ("path", "out", "as_json", *taken)}
