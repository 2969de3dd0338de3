"""What was measured of models or predicted for them, and what neighbours on a device cost.

May import: devices, workload.
Start with `profile.py`.
"""
