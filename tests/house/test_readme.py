"""The README's code is run as it stands: a newcomer pastes it first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_fifteen_lines_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_command_it_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^make (\w+)", text, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_planning_commands_run_on_the_committed_data(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().partition("## Plans without a GPU")[2]
    block = text.partition("```console\n")[2].partition("```")[0]
    assert block.count("spacetime ") == len(block.strip().splitlines()) >= 6
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    own = f'set -e\nspacetime() {{ "{sys.executable}" -m spacetime "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", own + block], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout.partition("parvagpu")[0]


def test_a_plan_is_run_by_the_commands_as_they_stand(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    own = f'set -e\nspacetime() {{ "{sys.executable}" -m spacetime "$@"; }}\n'
    paths = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", own + block], cwd=tmp_path, env=os.environ | paths,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())["overall"]
    assert report["offered"] == report["completed"] + sum(report["dropped"].values()) > 0
