"""The graphs of models that people have prove that their samples are apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, QUICK

from spacetime.fusion import doubt, export

transformers = pytest.importorskip("transformers")
PAGE = Path(__file__).parents[2] / "docs" / "answers.md"
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES
]


@pytest.mark.parametrize("name", NAMES)
def test_its_samples_are_apart(name: str) -> None:
    torch.manual_seed(0)
    model, args, kwargs = ARCHITECTURES[name](transformers)
    assert doubt(export(model.eval(), args, kwargs)) is None


def test_the_page_lists_them() -> None:
    rows = [
        line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if "| proven" in line
    ]
    assert rows == [*ARCHITECTURES]
