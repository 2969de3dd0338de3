"""Measured interference read and fitted: pairs of models, or a certificate of `spacetime verify`.

{"format": "spacetime.interference/1",
 "uses": {model: {"l2": 0.3, "dram": 0.6, "kernels"?, "active_us"?, "power_w"?}},
 "pairs": [{"model", "units", "others": [[model, units], ...], "slowdown": 1.15}, ...]}

A use is that of the model alone on the whole device, `units` are percent. Of the models fitted the
one of least held-out error is used. A certificate (`spacetime verify --json`) knows no models: its
median slowdown of a partition beside a stressor counts for every pair.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import Any

from spacetime.errors import ProfileError
from spacetime.profiles.interference import (
    Constant,
    Crowd,
    Fitted,
    MeasuredInterference,
    MeasuredPair,
    Use,
    cross_validated,
)

FORMAT = "spacetime.interference/1"
CERTIFICATE = "spacetime.verify/1"
USE = tuple(field.name for field in fields(Use))


def read_interference(path: Path) -> tuple[Crowd, tuple[Fitted, ...]]:
    """The model to plan with, and every model's held-out errors, best first.

    Raises ProfileError, one line `file: field: what it must be`.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(data, dict) and data.get("format") == CERTIFICATE:
            return _certificate(data), ()
        return _fitted(data)
    except OSError as error:
        raise ProfileError(str(path), f"cannot be read: {error.strerror}") from error
    except ProfileError as error:
        raise ProfileError(error.field, error.problem, where=f"{path}: ") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError("interference", f"is not JSON: {error}", where=f"{path}: ") from error


def _certificate(data: dict[str, Any]) -> Constant:
    rows = data.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ProfileError("rows", "must hold at least one pair")
    found = [_number(f"rows[{n}].p50_inflation", row.get("p50_inflation"), 0)
             for n, row in enumerate(rows)]  # fmt: skip
    return Constant(max(1.0, fmean(found)))


def _fitted(data: Any) -> tuple[Crowd, tuple[Fitted, ...]]:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ProfileError("format", f"must be {FORMAT} or {CERTIFICATE}")
    entries, rows = data.get("uses"), data.get("pairs")
    if not isinstance(entries, dict) or not isinstance(rows, list):
        raise ProfileError("pairs", "uses must be fields and values, and pairs a list")
    uses = {model: _use(f"uses.{model:.40}", values) for model, values in entries.items()}
    known = MeasuredInterference(Constant(1.0), uses)
    fits = cross_validated([_pair(f"pairs[{n}]", row, known) for n, row in enumerate(rows)])
    best = fits[0].slowdown
    return best if isinstance(best, Constant) else MeasuredInterference(best, uses), fits


def _use(place: str, values: Any) -> Use:
    if not isinstance(values, dict) or not {"l2", "dram"} <= set(values) <= set(USE):
        raise ProfileError(place, f"must have l2 and dram, and may have {', '.join(USE)}")
    found: dict[str, Any] = {
        name: _number(f"{place}.{name}", value, 0, 1 if name in {"l2", "dram"} else 1e9)
        for name, value in values.items()
    }
    return Use(**found | {"kernels": int(found.get("kernels", 0))})


def _pair(place: str, row: Any, known: MeasuredInterference) -> MeasuredPair:
    if not isinstance(row, dict) or set(row) != {"model", "units", "others", "slowdown"}:
        raise ProfileError(place, "must have model, units, others and slowdown")
    others = row["others"]
    if not isinstance(others, list) or not others:
        raise ProfileError(f"{place}.others", "must list at least one model and its units")
    uses = [_placed(f"{place}.others[{n}]", other, known) for n, other in enumerate(others)]
    own = _placed(place, [row["model"], row["units"]], known)
    slowdown = _number(f"{place}.slowdown", row["slowdown"], 0.1, 1000)
    return MeasuredPair(row["model"], own, tuple(uses), slowdown)


def _placed(place: str, placed: Any, known: MeasuredInterference) -> Use:
    if not isinstance(placed, list) or len(placed) != 2 or not isinstance(placed[0], str):
        raise ProfileError(place, f"must be a model and its units, got {placed!r:.40}")
    return known.use(placed[0], _number(f"{place}.units", placed[1], 0.1, 100))


def _number(place: str, value: Any, low: float, high: float = math.inf) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= min(high, 1e12):
        raise ProfileError(place, f"must be a number from {low:g}, got {value!r:.40}")
    return float(value)
