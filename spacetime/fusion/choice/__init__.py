"""Which implementation of a fused operation is fastest: the candidates, their check and the timing.

Start with `super_kernels.py`, the candidates; `tune.py` chooses.
"""
