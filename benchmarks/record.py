"""Records: what every benchmark writes down of its machine, its command and its rows.

A record is printed as tables or as JSON, and saved as JSON with a picture.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, RenderableType

from spacetime.benchmarks.driving.replaced import replace_text
from spacetime.errors import InvalidInput, UnsupportedError
from spacetime.terminal.tables import FittedTable

FORMAT = "spacetime.bench/1"
RECORD_WIDTH = 200  # one row of a recorded file, such as one move of a plan


def header(
    topic: str, *, seed: int, quick: bool, chosen: Mapping[str, Sequence[object] | None]
) -> dict[str, Any]:
    """Returns the facts without which a number means nothing: machine, versions, commit, command.

    chosen: the topic's own options by name, None where its defaults hold.
    """
    words = ["spacetime", "bench", topic, *["--quick"] * quick, *["--seed", str(seed)] * bool(seed)]
    for name, values in chosen.items():
        words += [word for value in values or () for word in (f"--{name}", str(value))]
    return {
        "format": FORMAT,
        "topic": topic,
        "command": " ".join(words),
        "seed": seed,
        "quick": quick,
        "device": "cpu",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
    }


def known(field: str, asked: Iterable[str], words: Collection[str]) -> None:
    """Raises InvalidInput, naming the field, for the first of `asked` that is none of `words`."""
    for word in asked:
        if word not in words:
            raise InvalidInput("-", field, f"one of {', '.join(words)}", word)


def published(name: str) -> Path:
    """Returns a file or folder of what others measured, in the folder that SPACETIME_DATA names.

    Raises UnsupportedError where it is absent.
    """
    path = Path(os.environ.get("SPACETIME_DATA", "../shared/data")) / name
    if not path.exists():
        raise UnsupportedError(f"{path} is absent; set SPACETIME_DATA to the published data")
    return path


def a100(name: str = "") -> Path:
    """Returns a file of `examples/a100`, the profiles and scenarios of ParvaGPU, or that folder.

    Raises UnsupportedError outside a checkout of the project, which alone has it.
    """
    path = Path(__file__).resolve().parent.parent / "examples" / "a100" / name
    if not path.exists():
        raise UnsupportedError(f"{path} is absent; run this in a checkout of the project")
    return path


def cpu_name() -> str:
    """Returns the processor's own name."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def device_folder() -> str:
    """Returns the name of the folder of this machine's records, such as `amd-epyc-2-cores`."""
    words = f"{cpu_name()} {len(os.sched_getaffinity(0))} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def commit() -> str:
    """Returns the commit measured, with `+` where files differ from it.

    Outside a checkout it is empty.
    """
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def save(record: dict[str, Any], out: Path) -> Path:
    """Writes `record` to `<out>/<topic>.json` and returns the path.

    The file is replaced as a whole, so that one who is ended leaves the record of the row before.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{record['topic']}.json"
    replace_text(path, laid_out(record) + "\n")
    return path


def laid_out(value: Any, depth: int = 0, before: int = 0) -> str:
    """Returns `value` as JSON of short lines: a part that fits a line stays on one.

    Numbers fill lines. before: the columns that are taken on the line where it starts; one column
    is left for a comma.
    """
    flat = json.dumps(value)
    if before + len(flat) < RECORD_WIDTH or not isinstance(value, list | dict):
        return flat
    gap = " " * (depth + 1)
    if not set('"{') & set(flat):  # numbers only: a break at any blank leaves them whole
        filled = textwrap.fill(
            flat, RECORD_WIDTH - 1, initial_indent=" " * before, subsequent_indent=gap
        )
        return filled[before:]
    named = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    heads = ((gap + ("" if key is None else f"{json.dumps(key)}: "), item) for key, item in named)
    lines = [head + laid_out(item, depth + 1, len(head)) for head, item in heads]
    return flat[0] + "\n" + ",\n".join(lines) + "\n" + " " * depth + flat[-1]


def publish(
    record: dict[str, Any],
    tables: Iterable[RenderableType],
    *,
    out: Path | None,
    as_json: bool,
    plots: str | None,
) -> None:
    """Prints the record, as JSON or as tables; saves it and its picture where `out` is given.

    tables: drawn from only where tables are printed. plots: the module of `spacetime.plots` that
    draws the picture, by its function `draw_<topic>`; None draws no picture.
    """
    if as_json:
        print(json.dumps(record))
    else:
        shown = Console()
        for part in tables:
            shown.print(part)
    if out is None:
        return
    wrote = [save(record, out)]
    if plots is not None:
        wrote.append(wrote[0].with_suffix(".png"))
        # Imported here: drawing needs an optional package that measuring does not.
        draw = getattr(import_module(f"spacetime.plots.{plots}"), f"draw_{record['topic']}")
        draw(record, wrote[1])
    if not as_json:
        print("wrote", " and ".join(map(str, wrote)))


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> FittedTable:
    """Returns a table with its first column to the left and numbers to the right."""
    cells = [[text(cell) for cell in row] for row in rows]
    return FittedTable(heads, cells, words=heads[:1], title=title)


def text(cell: object) -> str:
    """Returns a cell's text: three significant digits, a dash for what was not measured."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Returns the geometric mean; 0 where one value is 0, None where there is none."""
    factors = [*values]
    if not all(factors):
        return 0.0
    logs = [math.log(factor) for factor in factors]
    return math.exp(sum(logs) / len(logs)) if logs else None
