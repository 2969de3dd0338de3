"""The rules that write an operation for slots: from a node of one tenant's graph to a slot
operation.

The files import `lower.py`, which applies them, `graph/`, `indexes/` and `choice/operation.py`.
Start with `table.py`, which lists every rule by its operation; then `linear.py`, the plainest.
"""
