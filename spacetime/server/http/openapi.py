"""The OpenAPI description of the protocol as this server speaks it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def description() -> dict[str, Any]:
    """Returns the description, made once from `openapi.yaml`; each GET has a HEAD beside it."""
    text = (Path(__file__).parent / "openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    for item in document["paths"].values():
        if "get" in item:
            item["head"] = _head(item["get"])
    return document


def _head(get: dict[str, Any]) -> dict[str, Any]:
    """Returns the HEAD that belongs to a GET: the same answers without their bodies."""
    responses = {
        status: {"description": "As for GET, without a body"} for status in get["responses"]
    }
    return get | {"summary": f"{get['summary']}: the headers only", "responses": responses}
