"""Shares and instances that others enforce: MPS daemons, MIG instances, and the device inside a
process that was given one.

May import: devices, models, plan, processes, session.
Start with `mps.py` and `mig_control.py`, what a user calls.
"""
