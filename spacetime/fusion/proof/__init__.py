"""The proof that a model keeps the samples of a batch apart, from its graph.

Start with `walk.py`; the rules by kind of operation are in `shapes.py`, `indexing.py` and
`computing.py`.
"""

from __future__ import annotations

from spacetime.fusion.proof.walk import Doubt, doubt

__all__ = ["Doubt", "doubt"]
