"""Operations that index by what a caller gave: their bounds, and how a graph says that one is out.

Start with `table.py`, the operations; then `guards.py`.
"""
