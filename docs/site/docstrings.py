"""Docstrings as the site of `make docs` shows them: doctests as code, parameters as a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^ *(?:>>>|\.\.\.) .*\n?)+", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with its doctests in fences, without prompts."""

    def block(found: re.Match[str]) -> str:
        lines = [re.sub(r"^ *(?:>>>|\.\.\.) ", "", line) for line in found[0].splitlines()]
        return "\n```python\n" + "\n".join(lines) + "\n```\n"

    return _DOCTEST.sub(block, text)


def listed(text: str, parameters: list[str]) -> str:
    """The text with `name: what it is`, in run-in sentences, as a list; `Raises` begins a line."""
    if not parameters:
        return text
    name = "|".join(map(re.escape, parameters))
    begins = rf"(?:^|(?<=[.;)]))\s+((?:{name})(?:, (?:{name}))*): "
    text = re.sub(begins, lambda found: f"\n\n* **{found[1]}**: ", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\.)\s+(?=Raises [A-Z])", "\n\n", text)


def parameters_of(obj: griffe.Object) -> list[str]:
    """The names of the parameters of a function, or of what a class is made with."""
    made = obj.members.get("__init__", obj) if obj.is_class else obj
    return [each.name for each in getattr(made, "parameters", []) if each.name != "self"]


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = listed(obj.docstring.value, parameters_of(obj))
            obj.docstring.value = fenced(text)
