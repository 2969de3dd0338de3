"""Super-kernels: one operation over slots, each slot with the weights of its own tenant.

A kernel takes ``rows`` (int64 [S], the row of the stacks that each slot uses) and ``run`` (int64
scalar: the first row when ``rows`` is a run of consecutive rows, else -1), then its operands;
stacks are ``[T, ...]``. This package imports nothing of spacetime; `reference` is the plain twin.
"""
