"""Which rule rewrites which operation: one table, made of the tables of the rule files."""

from __future__ import annotations

from typing import Any

from spacetime.fusion.lower import Rule
from spacetime.fusion.rules import arithmetic, convolution, linear, normalisation

RULES: dict[Any, Rule] = {
    **convolution.RULES,
    **linear.RULES,
    **arithmetic.RULES,
    **normalisation.RULES,
}


def rule_of(target: Any) -> Rule | None:
    """The rule for an operation; None where only the generic rule is left."""
    if target in RULES:
        return RULES[target]
    return arithmetic.pointwise if arithmetic.is_pointwise(target) else None
