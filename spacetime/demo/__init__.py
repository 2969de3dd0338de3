"""`spacetime demo`, what a newcomer runs first; `zoo/` holds real models to try things on.

May import: devices, models, plots, session, terminal, workload.
Start with `run.py`.
"""
