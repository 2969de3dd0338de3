"""What a device's machine need not do itself: prepared elsewhere, carried there, and used there.

The one seam to admission's compiler: `spacetime.compile_ahead` works out launch signatures without
a device and compiles them in processes. A version without it says so, and compiles at admission.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spacetime.benchmarks.replaced import replace_text
from spacetime.errors import UnsupportedError

FORMAT = "spacetime.prepared/1"
MANIFEST = "manifest.json"
CHOICES = "choices"  # the tuner's, of earlier runs: a folder of JSON files
PACKAGES = ("torch", "triton", "transformers")
Facts = dict[str, Any]
# What run.sh measures, as options of `flops.run` and `models.run`: the kernels of these are worth
# compiling ahead, and inputs are drawn from the seeds.
CASES: Facts = {
    "flops": {"problems": ["conv2_2"], "dtypes": ["fp32", "bf16"],
              "tenants": [2, 4, 8, 16, 32, 64, 120], "seed": 0},
    "models": {"models": ["resnet-50"], "dtypes": ["bf16"], "tenants": [16], "one_bucket": True,
               "seed": 0},
}  # fmt: skip


def versions() -> dict[str, str | None]:
    """Of the packages that compiled kernels depend on."""
    return {name: _version(name) for name in PACKAGES}


def prepare(folder: Path) -> Facts:
    """Makes in `folder` what needs no device; what it made, as written to its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    facts: Facts = {"format": FORMAT, "versions": versions(), "cases": CASES}
    facts |= {"compiled": _compiler("prepare", folder)}
    facts |= {"seconds": time.monotonic() - begin}
    replace_text(folder / MANIFEST, json.dumps(facts, indent=1) + "\n")
    return facts


def manifest(folder: Path) -> Facts:
    """What a folder holds. Raises UnsupportedError naming what is wrong with it."""
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
    """Compiles what the measurements will launch, from what was prepared where that is given."""
    here = versions()
    facts: Facts = {"versions": here}
    if folder is not None:
        there = manifest(folder)["versions"]
        facts["differs"] = {n: [there.get(n), here[n]] for n in here if there.get(n) != here[n]}
    return facts | {"compiled": _compiler("compile", folder)}


def seed_choices(folder: Path, cache: Path) -> int:
    """Copies the tuner's choices of an earlier run to this one's cache; how many files."""
    files = sorted((folder / CHOICES).glob("*.json"))
    cache.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, cache / file.name)
    return len(files)


def _compiler(verb: str, folder: Path | None) -> Facts:
    """What admission's compiler says: its counts and seconds, or why there is none."""
    try:
        module = import_module("spacetime.compile_ahead")
    except ModuleNotFoundError as why:
        if why.name != "spacetime.compile_ahead":
            raise
        return {"refused": "this version compiles at admission only"}
    begin = time.monotonic()
    try:
        made: Facts = getattr(module, verb)(CASES, folder, processes=_processes())
    except UnsupportedError as why:
        return {"refused": str(why)}
    return {**made, "seconds": time.monotonic() - begin}


def _processes() -> int:
    """All cores but one, which this process needs."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
