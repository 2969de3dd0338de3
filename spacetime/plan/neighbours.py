"""How much partitions of one device slow each other, by a model of interference. Pure.

Instances of MIG have caches and memory of their own and slow nobody. A partition that several
tenants share counts with the one whose launches cost the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spacetime.plan.plan import GpuPlan, PartitionPlan

if TYPE_CHECKING:  # it needs numpy, which help and plans without such a model do not
    from spacetime.profiles.interference import Crowd

APART = "mig"


def slower(gpu: GpuPlan, model_of: Mapping[str, str], cost: Crowd) -> dict[str, dict[str, float]]:
    """By partition and tenant the factor on its latency, where it is above 1.

    `model_of` has every tenant; raises ProfileError where `cost` does not know a model.
    """
    beside = [part for part in gpu.partitions if part.kind != APART and part.sharers]
    found = {
        part.id: {
            assignment.tenant: cost.among(model, part.units, others)
            for assignment in part.sharers
            for model in [model_of[assignment.tenant]]
            for others in [_worst(model, part, beside, model_of, cost)]
        }
        for part in beside
    }
    return {
        name: {tenant: factor for tenant, factor in factors.items() if factor > 1}
        for name, factors in found.items()
    }


def _worst(
    model: str,
    part: PartitionPlan,
    beside: list[PartitionPlan],
    model_of: Mapping[str, str],
    cost: Crowd,
) -> list[tuple[str, int]]:
    """Of each other partition with the same parent the model that costs most, and its units."""
    return [
        (
            max(
                (model_of[assignment.tenant] for assignment in other.sharers),
                key=lambda name: cost.factor(model, part.units, name, other.units),
            ),
            other.units,
        )
        for other in beside
        if other is not part and other.parent == part.parent
    ]
