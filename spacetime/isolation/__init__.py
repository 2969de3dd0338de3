"""MPS daemons and MIG instances: the parts of a device that NVIDIA's software keeps apart.

What is measured of any isolation, the certificate, is in `verify/`.

`hosted_device.py` is the device inside a process that was given such a part.

May import: devices, models, plan, processes, session.
Start with `mps.py` and `mig_control.py`, what a user calls.
"""
