"""How a model is held and run: `cpu/`, `cuda/`, and what both share.

May import: fusion, kernels, profiles, workload.
Start with `modules.py`, what `Session.add` is given; then `cpu/family.py` and `cuda/family.py`.
"""
