"""Who makes plans: a file for each planner, with its paper in the first line. `packing/` holds what
planners are built of.

May import: devices, plan, profiles, workload.
Start with `registry.py`, the planners by name; `spacetime.py` is our own.
"""
