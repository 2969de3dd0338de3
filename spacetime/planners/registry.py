"""The planners by name: how one is found, and made with its own choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spacetime.errors import UnsupportedError

if TYPE_CHECKING:  # the names alone are wanted by the command line, whose help is instant
    from spacetime.plan.options import Planner

# Name -> module of this room and class. Loaded when asked for: `exact` needs scipy.
PLANNERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "spacetime": ("spacetime", "SpaceTime"),
        "exact": ("exact", "Exact"),
        "parvagpu": ("parvagpu", "ParvaGpu"),
        "mps-default": ("baselines", "MpsDefault"),
        "time-only": ("baselines", "TimeOnly"),
        "whole-gpu": ("baselines", "WholeGpu"),
        "mig-only": ("baselines", "MigOnly"),
        "gpulet": ("gpulet", "Gpulet"),
        "sbp": ("sbp", "Sbp"),
        "greedy": ("greedy", "Greedy"),
        "self-tuning": ("self_tuning", "SelfTuning"),
        "ideal": ("ideal", "Ideal"),
        "igniter": ("igniter", "Igniter"),
        "paris": ("paris", "Paris"),
        "homogeneous": ("paris_baselines", "Homogeneous"),
        "random": ("paris_baselines", "Random"),
    }
)


SIMPLE = {"int", "float", "bool", "str", "None"}


def planner(name: str, **choices: Any) -> Planner:
    """The planner of this name, its fields set by `choices`.

    Raises UnsupportedError for an unknown name or choice.
    """
    if name not in PLANNERS:
        raise UnsupportedError(f"planner: {name!r:.40} is none of {', '.join(PLANNERS)}")
    module, kind = PLANNERS[name]
    try:
        maker = getattr(import_module(f"spacetime.planners.{module}"), kind)
    except ImportError as error:
        missing = (error.name or "more").partition(".")[0]
        raise UnsupportedError(
            f"planner {name} needs {missing}: pip install 'spacetime[plan]'"
        ) from error
    return _made(name, maker, choices)


def _made(name: str, maker: type[Any], choices: Mapping[str, Any]) -> Planner:
    known = {field.name: field.type for field in fields(maker) if field.name != "name"}
    for choice, value in choices.items():
        if choice not in known:
            has = ", ".join(known) or "none"
            raise UnsupportedError(f"planner {name}: {choice} is none of its choices: {has}")
        # Annotations are texts such as "int | None"; a whole number is a float as well.
        kinds = {kind.strip() for kind in str(known[choice]).split("|")}
        kinds |= {"int"} if "float" in kinds else set()
        # What is richer than these is judged by the planner itself.
        if kinds <= SIMPLE and ("None" if value is None else type(value).__name__) not in kinds:
            raise UnsupportedError(
                f"planner {name}: {choice} must be {known[choice]}, got {value!r:.40}"
            )
    try:
        made: Planner = maker(**choices)
    except (TypeError, ValueError, AttributeError) as error:
        raise UnsupportedError(f"planner {name}: {error}") from error
    return made
