"""Facts shared by every layer: the run-time policy and its presets.

Pure: no I/O, no clock, no extension module. The words are those of ``csrc/sched/names.h`` and the
presets those of ``csrc/sched/presets.h``; a test compares both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUTES = ("pinned", "weighted", "least-wait", "elsa")
ORDERS = ("fifo", "edf", "priority", "fair", "duty")
BATCHES = ("one", "greedy", "timeout", "slack")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _require_word(field: str, word: str, allowed: tuple[str, ...]) -> None:
    _require(word in allowed, f"{field}: {word!r} is not one of {', '.join(allowed)}")


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The run-time rule: route x order x batch, and what is always on.

    ``route`` chooses the lane a request queues on, ``order`` the family a free lane serves next,
    ``batch`` how many requests a launch takes and how long a free lane waits for more. With
    ``shed`` a request whose launch is predicted to answer after its deadline is dropped when its
    turn comes; while others fill the launch in its place, already after three quarters of the time
    it could wait. ``lend`` lets an idle lane run one launch of another's work at a time, of at most
    ``max_borrow_ns`` predicted. Priorities act under every policy: a launch begins at the highest
    one that waits on its lane, and what is said of ``order`` holds among equals; a lane that has
    passed over lower ones for ``age_ns`` begins one launch with the oldest request among them (None
    = never), so none starves. A tenant slower than ``straggler_multiple`` times its prediction
    (0 = never) for ``straggler_patience`` launches gets launches of its own, on
    ``straggler_lane`` if given. ``first_fit``, ``elsa_alpha``, ``elsa_beta``: route ``elsa``;
    ``timeout_ns``: batch ``timeout``.

    Raises:
        ValueError: a word that is none of the allowed ones, or a number out of range.

    Example:
        >>> Policy.named("elsa").route
        'elsa'
        >>> Policy(order="fair", batch="timeout", timeout_ns=5_000_000).lend
        True
    """

    route: str = "least-wait"
    order: str = "edf"
    batch: str = "slack"
    timeout_ns: int = 2_000_000
    shed: bool = False
    lend: bool = True
    max_borrow_ns: int | None = None
    age_ns: int | None = 200_000_000
    first_fit: bool = False
    elsa_alpha: float = 1.0
    elsa_beta: float = 1.0
    straggler_multiple: float = 0.0
    straggler_recovery: float = 1.2
    straggler_patience: int = 8
    straggler_lane: int | None = None

    def __post_init__(self) -> None:
        _require_word("route", self.route, ROUTES)
        _require_word("order", self.order, ORDERS)
        _require_word("batch", self.batch, BATCHES)
        _require(self.timeout_ns >= 0, "timeout_ns: must not be negative")
        _require(
            self.max_borrow_ns is None or self.max_borrow_ns > 0, "max_borrow_ns: must be positive"
        )
        _require(self.age_ns is None or self.age_ns > 0, "age_ns: must be positive, or None")
        _require(_positive(self.elsa_alpha), "elsa_alpha: must be positive")
        _require(_positive(self.elsa_beta), "elsa_beta: must be positive")
        _require(
            self.straggler_multiple == 0 or _positive(self.straggler_multiple),
            "straggler_multiple: must be 0 (off) or positive",
        )
        if self.straggler_multiple:
            self._check_straggler()

    def _check_straggler(self) -> None:
        _require(
            _positive(self.straggler_recovery)
            and self.straggler_recovery < self.straggler_multiple,
            "straggler_recovery: must be positive and below straggler_multiple",
        )
        _require(self.straggler_patience >= 1, "straggler_patience: must be at least 1")
        _require(
            self.straggler_lane is None or self.straggler_lane >= 0,
            "straggler_lane: must not be negative",
        )

    @staticmethod
    def named(name: str) -> Policy:
        """The preset ``name``.

        Raises:
            ValueError: no preset has the name; the message lists those there are.
        """
        _require_word("policy", name, tuple(PRESETS))
        return PRESETS[name]


PRESETS: dict[str, Policy] = {
    "time-only": Policy(route="pinned", order="fifo", batch="one", lend=False),
    "space-only": Policy(route="pinned", order="fifo", batch="one", lend=False),
    "space-time": Policy(shed=True, straggler_multiple=2.0),
    "elsa": Policy(route="elsa", order="fifo", batch="one", lend=False),
    "gpulet": Policy(route="weighted", order="duty", batch="greedy", lend=False),
    "parvagpu": Policy(route="weighted", order="fifo", batch="greedy", lend=False),
    "mps-default": Policy(route="pinned", order="fifo", batch="one", lend=False),
}
