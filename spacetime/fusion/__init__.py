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
from .guards import Guard, guards_of, raises_otherwise
from .placed import placed, placed_alone
from .probes import Ranges, ranges, rows_of, with_extremes
from .proof import Doubt, doubt
from .report import FusionReport
from .slot_graph import SlotGraph, slot_graph
from .tuned import Tuner
from .watched import within_bounds

__all__ = [
    "CannotExport",
    "CannotFuse",
    "Doubt",
    "Exported",
    "Fused",
    "FusionReport",
    "Guard",
    "Ranges",
    "SlotGraph",
    "Tuner",
    "doubt",
    "draws_random",
    "export",
    "fingerprint",
    "fuse",
    "guards_of",
    "looks_at_values",
    "placed",
    "placed_alone",
    "raises_otherwise",
    "ranges",
    "rows_of",
    "slot_graph",
    "with_extremes",
    "within_bounds",
]
