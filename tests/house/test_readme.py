"""The README's code and commands are run as they stand: a newcomer pastes them first."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
SPACETIME = f'set -e\nspacetime() {{ "{sys.executable}" -m spacetime "$@"; }}\n'
SURROUNDINGS = os.environ | {"PYTHONPATH": str(ROOT)}


def commands() -> list[str]:
    """The lines of the README's shell block, without comments."""
    (block,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def command(word: str) -> str:
    (line,) = [line for line in commands() if f"{word} " in line]
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which the README's paths are those of the checkout, and files are ours."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(line: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", SPACETIME + line], cwd=folder, env=SURROUNDINGS,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150
    assert max(map(len, TEXT.splitlines())) <= 100


def test_the_fifteen_lines_run() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(block.splitlines()) <= 16
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_command_it_names_exists() -> None:
    targets = set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_there_is_one_command_each() -> None:
    words = ("spacetime plan", "spacetime run", "cc", "spacetime serve")
    assert [line for line in commands() if line not in map(command, words)] == []


def test_the_plan_is_made_on_the_committed_data(folder: Path) -> None:
    told = run(command("spacetime plan"), folder)
    assert "a100-80gb" in told
    assert "WARNING" not in told


def test_the_workload_is_run_live(folder: Path) -> None:
    run(command("spacetime run"), folder)
    report = json.loads((folder / "out" / "report.json").read_text())["overall"]
    assert report["offered"] == report["completed"] + sum(report["dropped"].values()) > 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler 'cc' on this machine")
def test_the_program_in_c_is_built_and_runs(folder: Path) -> None:
    assert " 0 wrong" in run(command("cc"), folder)


def test_the_server_serves_until_it_is_interrupted(folder: Path) -> None:
    line = command("spacetime serve").split("#")[0]
    line += " --http-port 0 --grpc-port 0 --metrics-port 0 --json"
    words = [sys.executable, "-m", *line.split()]
    with subprocess.Popen(
        words, cwd=folder, env=SURROUNDINGS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        assert "http" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0


def test_its_pictures_are_there() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
