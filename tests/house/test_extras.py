"""What an optional package is missing for is told in a line that names an extra, which has it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

from spacetime.cli.root import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(wanted: list[str]) -> list[str]:
    """The packages of a list of requirements."""
    return [re.split(r"[^\w-]", requirement)[0] for requirement in wanted]


BROUGHT = {extra: names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items()}
MODULES = {  # packages whose module has another name
    "grpcio": "grpc",
    "protobuf": "google",
    "prometheus-client": "prometheus_client",
    "nvidia-ml-py": "pynvml",
    "cupy-cuda13x": "cupy",
}


def test_every_extra_that_a_line_names_is_there() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split():
        for extra in re.findall(r"spacetime\[(\w+)\]", (ROOT / name).read_text()):
            assert extra in BROUGHT, f"{name}: {extra}"


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_the_extra_of_a_missing_module_brings_it(module: str, extra: str) -> None:
    brought = BROUGHT[extra] + names(PROJECT["dependencies"])
    assert module in {MODULES.get(package, package) for package in brought}


def test_the_page_of_extras_has_all() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(BROUGHT)
