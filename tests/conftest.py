"""Which tests run beside others, and which need the machine to themselves (marker `alone`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

WHOLE = re.compile(r"^pytestmark = .*\bmark\.alone\b", re.MULTILINE)  # a module that is `alone`


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "run only the tests without (beside) or with (alone) the marker `alone`"
    parser.addoption("--turn", choices=["beside", "alone"], help=words)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules that have nothing to run in this turn are not even imported."""
    turn = config.getoption("turn")
    if turn is None or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    nothing = WHOLE.search(text) if turn == "beside" else "mark.alone" not in text
    return True if nothing else None  # None leaves the decision to others


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    turn = config.getoption("turn")
    if turn is None:
        return
    others = [each for each in items if bool(each.get_closest_marker("alone")) != (turn == "alone")]
    config.hook.pytest_deselected(items=others)
    items[:] = [each for each in items if each not in set(others)]
