"""How a model is held and run: `cpu/`, `cuda/`, and what both share.

May import: fusion, kernels, profiles, workload.
Start with `backend.py`, what a session asks of them; then `cpu/backend.py`, `cuda/backend.py`.
"""
