"""The planners' common shape: what they are asked, and how one is found by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol

from spacetime.devices.facts import DeviceFacts
from spacetime.errors import UnsupportedError
from spacetime.plan.plan import Plan
from spacetime.plan.timing import Turns
from spacetime.profiles.profile import Profiles
from spacetime.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan must respect, whoever makes it; the checker holds every plan to the same.

    `gpus`: how many devices there are (None: as many as needed). `max_utilisation`: the fraction
    of time a partition may be busy, in (0, 1]; what is left absorbs random arrivals (1 = the
    papers' own rule). `max_procs`: processes a partition may run side by side. `turns`: the bound
    of a cycle, see `timing.cycle_ms`.

    Raises UnsupportedError naming the option.
    """

    gpus: int | None = None
    max_utilisation: float = 0.9
    max_procs: int = 3
    turns: Turns = "own"

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 1:
            raise UnsupportedError(f"gpus: must be at least 1, got {self.gpus}")
        if not 0 < self.max_utilisation <= 1:
            raise UnsupportedError(
                f"max_utilisation: must be above 0 and at most 1, got {self.max_utilisation}"
            )
        if self.max_procs < 1:
            raise UnsupportedError(f"max_procs: must be at least 1, got {self.max_procs}")


class Planner(Protocol):
    """A pure function from demand to plan; its own choices are fields of the object."""

    @property
    def name(self) -> str:
        """What the plan says made it."""
        ...

    def plan(
        self, workload: Workload, profiles: Profiles, device: DeviceFacts, options: PlanOptions
    ) -> Plan:
        """A plan that passes `check`. Raises InfeasibleError naming tenant and bound."""
        ...


# Name -> module of this package and class. Loaded when asked for: `exact` needs scipy.
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
        maker = getattr(import_module(f"spacetime.plan.{module}"), kind)
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
