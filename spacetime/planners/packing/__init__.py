"""What planners are built of: the board of devices and partitions, cycles, knees, closed forms,
bounds and layouts.

Start with `cycle.py`, how much of a partition tenants need together.
"""
