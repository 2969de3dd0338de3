"""Models on a CUDA device: their weights stay on it, and their launches are captured graphs.

Start with `backend.py`; then `family.py` and `prepare.py`.
"""
