"""Fuse models of one architecture: any mixture of tenants is one batch.

fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
y = fused(batch, index=torch.tensor([2, 0, 2]))      # row s with the weights of index[s]
"""

from __future__ import annotations

from spacetime.errors import CannotExport, CannotFuse

from .export import Exported, export
from .fingerprint import fingerprint
from .fused import Fused, fuse
from .placed import placed
from .report import FusionReport
from .slot_graph import SlotGraph, slot_graph
from .tuned import Tuner

__all__ = [
    "CannotExport",
    "CannotFuse",
    "Exported",
    "Fused",
    "FusionReport",
    "SlotGraph",
    "Tuner",
    "export",
    "fingerprint",
    "fuse",
    "placed",
    "slot_graph",
]
