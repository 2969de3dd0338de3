"""Fuse models of one architecture: any mixture of tenants is one batch.

fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
y = fused(batch, index=torch.tensor([2, 0, 2]))      # row s with the weights of index[s]
"""

from __future__ import annotations

from .export import CannotExport, Exported, export
from .fingerprint import fingerprint
from .fused import Fused, fuse
from .guards import Guard, guards_of, raises_otherwise
from .layout import CannotFuse
from .placed import placed, placed_alone
from .report import FusionReport
from .slot_graph import SlotGraph, slot_graph
from .tuned import Tuner
from .watched import within_bounds

__all__ = [
    "CannotExport",
    "CannotFuse",
    "Exported",
    "Fused",
    "FusionReport",
    "Guard",
    "SlotGraph",
    "Tuner",
    "export",
    "fingerprint",
    "fuse",
    "guards_of",
    "placed",
    "placed_alone",
    "raises_otherwise",
    "slot_graph",
    "within_bounds",
]
