"""How a model is held and run: on cores (`cpu/`), on a GPU with its weights, captured graphs and
memory (`cuda/`), and what both share.

May import: fusion, kernels, profiles, workload.
Start with `backend.py`, what a session asks of them; then `cpu/backend.py`, `cuda/backend.py`.
"""
