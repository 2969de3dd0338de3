"""Which rule rewrites which operation: one table, from the rule files."""

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
    """rule_of(target): the rule for an operation, None when only the generic one is left."""
    if target in RULES:
        return RULES[target]
    return arithmetic.pointwise if arithmetic.is_pointwise(target) else None
