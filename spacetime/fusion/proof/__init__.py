"""The proof that a model keeps the samples of a batch apart, read from its graph.

The files import `graph/` and nothing else of fusion.
Start with `walk.py`, which goes through the graph; then `values.py`, what a rule is given. The
rules lie in `shapes.py`, `indexing.py`, `computing.py` and `layers.py`.
"""

from __future__ import annotations

from spacetime.fusion.proof.walk import Doubt, doubt

__all__ = ["Doubt", "doubt"]
