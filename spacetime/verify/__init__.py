"""`spacetime verify`: the isolation certificate. What a partition holds beside a busy neighbour.

May import: devices, kernels, models, session, terminal.
Start with `certificate.py`.
"""
