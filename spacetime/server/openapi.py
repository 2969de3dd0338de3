"""The OpenAPI description of the protocol as this server speaks it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def description() -> dict[str, Any]:
    """The description, as JSON has it."""
    text = (Path(__file__).parent / "openapi.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
