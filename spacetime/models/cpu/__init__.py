"""Models on the cores of a CPU: how they are run, and which program of a model is the fastest.

Start with `backend.py`; then `family.py`.
"""
