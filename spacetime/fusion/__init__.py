"""Fuse models of one architecture: any mixture of tenants is one batch.

fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
y = fused(batch, index=torch.tensor([2, 0, 2]))      # row s with the weights of index[s]
"""

from __future__ import annotations

from spacetime.errors import CannotExport, CannotFuse

from .export import Exported, export
from .fingerprint import fingerprint
from .fused import Fused, fuse
from .graph import draws_random, looks_at_values
from .placed import placed
from .probes import Ranges, ranges, rows_of, with_extremes
from .proof import Doubt, doubt
from .report import FusionReport
from .slot_graph import SlotGraph, slot_graph
from .tuned import Tuner

__all__ = [
    "CannotExport",
    "CannotFuse",
    "Doubt",
    "Exported",
    "Fused",
    "FusionReport",
    "Ranges",
    "SlotGraph",
    "Tuner",
    "doubt",
    "draws_random",
    "export",
    "fingerprint",
    "fuse",
    "looks_at_values",
    "placed",
    "ranges",
    "rows_of",
    "slot_graph",
    "with_extremes",
]
