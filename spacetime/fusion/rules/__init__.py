"""How each kind of operation is written for slots: one rule an operation.

Start with `table.py`, every rule by its operation.
"""
