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
    for item in found["paths"].values():
        if "get" in item:
            item["head"] = _head(item["get"])
    return found


def _head(get: dict[str, Any]) -> dict[str, Any]:
    """HEAD beside a GET: the same answers without their bodies."""
    responses = {
        status: {"description": "As for GET, without a body"} for status in get["responses"]
    }
    return get | {"summary": f"{get['summary']}: the headers only", "responses": responses}
