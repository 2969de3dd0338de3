"""Indexes out of bounds: which operations index by what a caller gave, and what happens to an index
that is beyond its bounds.

The files import `graph/` and nothing else of fusion.
Start with `table.py`, the operations and their bounds; then `guards.py`, the checks in a graph.
"""
