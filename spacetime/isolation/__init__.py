"""Parts of a device that NVIDIA's software enforces: shares of MPS daemons, and MIG instances.

`hosted_device.py` is the device inside a process that was given such a part.

May import: devices, models, plan, processes, session.
Start with `mps.py` and `mig_control.py`, what a user calls.
"""
