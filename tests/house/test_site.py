"""The site of `make docs`: every page is in it, and the reference has every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spacetime as st
from spacetime import errors

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "mkdocs.yml").read_text()
SHOWN = re.findall(r": (\S+\.md)$|- (\S+\.md)$", CONFIG, re.MULTILINE)
NAV = {titled or alone for titled, alone in SHOWN}


def test_every_page_is_in_the_navigation() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= NAV
    assert [page for page in NAV if not (ROOT / page).exists()] == []


def test_every_decision_is_listed() -> None:
    text = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for path in (ROOT / "docs" / "decisions").glob("0*.md"):
        number, title = int(path.name[:4]), path.read_text().partition("\n")[0]
        assert title.startswith(f"# {number}. "), path.name
        assert f"({path.name})" in text, path.name


def test_the_reference_has_every_public_name() -> None:
    shown = set(re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.M))
    assert "spacetime.errors" in shown
    for name in st.__all__:
        assert f"spacetime.{name}" in shown or hasattr(errors, name), name


def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs: pip install 'spacetime[docs]'")
    done = subprocess.run(
        [ROOT / "docs" / "site" / "build.sh", tmp_path],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").exists()
    for page in tmp_path.rglob("*.html"):
        # Links may lead out; what a page loads may not.
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*https?://[^>]*>", page.read_text())
        assert [tag for tag in loaded if 'rel="canonical"' not in tag] == [], page.name
    reference = (tmp_path / "docs" / "reference.html").read_text()
    assert "<strong>max_batch</strong>: " in reference  # parameters are a list
    assert "&gt;&gt;&gt;" not in reference  # doctests are code
