"""Fuse models of one architecture: any mixture of tenants is one batch.

fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
y = fused(batch, index=torch.tensor([2, 0, 2]))      # row s with the weights of index[s]

May import: kernels.
Start with `fused.py`.
"""

from __future__ import annotations

from spacetime.errors import CannotExport, CannotFuse
from spacetime.fusion.choice.tune import Tuner
from spacetime.fusion.fused import Fused, fuse
from spacetime.fusion.graph.export import Exported, export
from spacetime.fusion.graph.fingerprint import fingerprint
from spacetime.fusion.graph.nodes import draws_random, looks_at_values
from spacetime.fusion.indexes.guards import Guard, guards_of, raises_otherwise
from spacetime.fusion.on_device import placed, placed_alone
from spacetime.fusion.probes import Ranges, ranges, rows_of, with_extremes
from spacetime.fusion.proof import Doubt, doubt
from spacetime.fusion.report import FusionReport
from spacetime.fusion.slots import SlotGraph, slot_graph
from spacetime.fusion.watched import within_bounds

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
