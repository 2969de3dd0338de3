"""`spacetime demo`, what a newcomer runs first; `zoo/` holds real models to try things on.

May import: plots, session, workload.
Start with `trial.py`; `commands/demo.py` runs it under three policies.
"""
