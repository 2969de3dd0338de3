"""The choice between implementations of a slot operation: the candidates, their check, their
timing.

The files import nothing else of fusion.
Start with `operation.py`, what there is to choose between; then `qualify.py`, which drops those
that are wrong, and `tune.py`, which picks the fastest.
"""
