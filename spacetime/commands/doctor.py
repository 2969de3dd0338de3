"""`spacetime doctor`: prints what this machine offers and what this build can use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from spacetime.devices.doctor import facts
from spacetime.terminal.tables import FittedTable


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """The options of `spacetime doctor`."""

    as_json: bool


def run(asked: DoctorCommand) -> None:
    """Prints the facts as lines and a table, or as JSON."""
    told = facts()
    if asked.as_json:
        print(json.dumps(told, indent=2))
    else:
        print_facts(told)


def print_facts(told: Mapping[str, Any]) -> None:
    """Prints the facts as lines and the mechanisms as a table."""
    screen = Console()
    width = max(map(len, told))
    for name, value in told.items():
        if name != "mechanisms":
            text = f"{name:<{width}}  {_line(value)}"
            screen.print(text, highlight=False, markup=False, soft_wrap=True)
    heads = ("mechanism", "state", "with, or why not", "serves")
    mechanisms = told["mechanisms"]
    rows = [(m["name"], "on" if m["on"] else "off", m["detail"], m["serves"]) for m in mechanisms]
    styles = ["" if m["on"] else "dim" for m in mechanisms]
    screen.print(FittedTable(heads, rows, words=heads, title="mechanisms", styles=styles))
    on = sum(m["on"] for m in mechanisms)
    screen.print(f"{on} of {len(mechanisms)} mechanisms are on", highlight=False)


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {detail}" for name, detail in value.items())
    return str(value)
