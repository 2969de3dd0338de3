"""Fusion: R models of one architecture become one module, and any mixture of them is one batch.

    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=(x,))
    y = fused(batch, index=torch.tensor([2, 0, 2]))  # batch[s] is answered by model index[s]

The words. A *tenant* is one of the R models. A *slot* is one place in a batch: it holds one sample
and names one tenant. A *stack* [T, ...] holds one weight of all T tenants; a *row* is a tenant's
place in every stack. A *slot operation* computes one operation of the model for all slots.

What lives here: `graph/` makes a graph of a model. `proof/` proves that the graph keeps the samples
of a batch apart. `rules/` writes each operation of the graph for slots. `choice/` picks the fastest
implementation of each. `indexes/` keeps the indexes that a caller gives within their bounds.

May import: kernels.
Start with `fused.py`, what a caller gets; then `slots.py`, the steps from a model to it.
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
