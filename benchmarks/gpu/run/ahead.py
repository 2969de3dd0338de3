"""What a device's machine need not do itself: prepared elsewhere, carried there, and used there.

The one seam to the compiler of kernels: `spacetime.commands.prepare` lists on the simulated device
the kernels that a session tunes among, and `kernels.triton.ahead` compiles a list in processes. A
version that lacks them says so, and compiles at admission.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.errors import SpacetimeError, UnsupportedError

FORMAT = "spacetime.prepared/1"
MANIFEST, KERNELS = "manifest.json", "kernels.json"
CHOICES = "choices"  # the tuner's, of earlier runs: a folder of JSON files
PACKAGES = ("torch", "triton", "transformers")
Facts = dict[str, Any]
DEVICE, SMS, CAPABILITY = "h200", 132, 90  # what is prepared for
TESTED: Facts = {"kinds": ("digits", "resnet"), "dtypes": ("fp32", "tf32", "bf16"), "max_batch": 2}
# What run.sh measures, as options of `flops.run` and `models.run`: the kernels of these are worth
# compiling ahead, and inputs are drawn from the seeds.
CASES: Facts = {
    "flops": {"problems": ["conv2_2"], "dtypes": ["fp32", "bf16"],
              "tenants": [2, 4, 8, 16, 32, 64, 120], "seed": 0},
    "models": {"models": ["resnet-50"], "dtypes": ["bf16"], "tenants": [16], "one_bucket": True,
               "seed": 0},
}  # fmt: skip


def versions() -> dict[str, str | None]:
    """Returns the versions of the packages that compiled kernels depend on."""
    return {name: _version(name) for name in PACKAGES}


def prepare(folder: Path) -> Facts:
    """Makes in `folder` what needs no device; returns what it made, as its manifest says."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    facts: Facts = {"format": FORMAT, "versions": versions(), "device": DEVICE, "cases": CASES}
    facts |= {"kernels": {"refused": "the preparation was ended before it was complete"}}
    replace_text(folder / MANIFEST, json.dumps(facts, indent=1) + "\n")
    facts |= {"kernels": _or_refused(_list, folder / KERNELS)}
    facts |= {"seconds": time.monotonic() - begin}
    replace_text(folder / MANIFEST, json.dumps(facts, indent=1) + "\n")
    return facts


def manifest(folder: Path) -> Facts:
    """Returns what a folder holds. Raises UnsupportedError naming what is wrong with it."""
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else "it is no JSON"
        raise UnsupportedError(f"--prepared {folder}: {path.name}: {reason}") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UnsupportedError(f"--prepared {folder}: {path.name} is not {FORMAT}")
    return facts


def compile_all(folder: Path | None) -> Facts:
    """Compiles the kernels that were listed, with the versions that are here."""
    here = versions()
    facts: Facts = {"versions": here}
    if folder is None:
        return facts | {"refused": "nothing is prepared: kernels are compiled at admission"}
    there = manifest(folder)["versions"]
    facts["differs"] = {n: [there.get(n), here[n]] for n in here if there.get(n) != here[n]}
    if not (folder / KERNELS).exists():
        return facts | {"refused": f"{folder} lists no kernels: they are compiled at admission"}
    return facts | _or_refused(_compile, folder / KERNELS)


def seed_choices(folder: Path, cache: Path) -> int:
    """Copies the tuner's choices of an earlier run to this one's cache; returns how many files."""
    files = sorted((folder / CHOICES).glob("*.json"))
    cache.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, cache / file.name)
    return len(files)


def _or_refused(verb: Callable[[Path], Facts], file: Path) -> Facts:
    """Returns what came of `verb`, or why nothing could."""
    try:
        return verb(file)
    except ModuleNotFoundError as why:
        if why.name not in {
            "spacetime.commands.prepare",
            "spacetime.kernels.triton.ahead",
            "triton",
        }:
            raise
        return {"refused": f"no {why.name} here: kernels are compiled at admission"}
    except (SpacetimeError, ValueError) as why:
        return {"refused": str(why)}


def _compile(file: Path) -> Facts:
    compiler = import_module("spacetime.kernels.triton.ahead")
    done = compiler.compile_all(compiler.read(file), CAPABILITY)
    facts: Facts = asdict(done)
    return facts | {"failed": list(done.failed)[:20], "failures": len(done.failed)}


def _list(file: Path) -> Facts:
    """Writes the kernels of what is measured, and of the mixtures that are tested."""
    listing = import_module("spacetime.commands.prepare")
    written = import_module("spacetime.kernels.triton.ahead").written
    from spacetime.benchmarks.gpu.rig import precision  # noqa: PLC0415 - torch

    kernels: set[str] = set()
    listed: dict[str, int] = {}
    for number, (name, model, x, most) in enumerate(_examples()):
        begin = time.monotonic()
        with precision(name) as dtype:
            example = model.to(dtype), (x.to(dtype),)
            kernels |= listing.kernels_for([example], DEVICE, sizes=(SMS,), max_batch=most)
        replace_text(file, written(kernels))  # a preparation that is ended has what came before
        listed[f"{number + 1}: {type(model).__name__} {name}"] = len(kernels)
        seconds = time.monotonic() - begin
        print(
            f"{len(kernels)} kernels listed; the last model took {seconds:.0f} s", file=sys.stderr
        )
    return {"listed": len(kernels), "after each model": listed}


def _examples() -> Iterator[tuple[str, Any, Any, int]]:
    """Yields precision, model, one request, and the most samples of a launch."""
    import torch  # noqa: PLC0415

    from spacetime.benchmarks.flops.problems import PROBLEMS  # noqa: PLC0415
    from spacetime.benchmarks.gpu.contenders import first_of  # noqa: PLC0415
    from spacetime.benchmarks.gpu.ours import layer_of  # noqa: PLC0415
    from spacetime.demo.zoo import exhibits as zoo  # noqa: PLC0415

    whole, layers = CASES["models"], CASES["flops"]
    for name in layers["dtypes"]:
        for problem in map(PROBLEMS.__getitem__, layers["problems"]):
            yield name, layer_of(problem), torch.randn(1, *problem.request), max(layers["tenants"])
    for name in whole["dtypes"]:
        for kind in whole["models"]:
            first = first_of(kind, whole["seed"])
            yield name, first.model, first.pool[:1], max(whole["tenants"])
    for kind in TESTED["kinds"]:
        for name in TESTED["dtypes"]:
            exhibit = next(iter(zoo.load(kind, 1)))
            yield name, exhibit.model, exhibit.pool[:1], TESTED["max_batch"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
