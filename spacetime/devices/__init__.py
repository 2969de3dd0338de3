"""Devices, as data (`facts.py`, `mig.py`: no PyTorch) and opened (`device.py`, `doctor.py`).

May import: workload.
Start with `facts.py`: the SMs, memory and bandwidth of each device that is known.
"""
