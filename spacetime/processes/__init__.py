"""LaneProcesses in processes of their own: what a model does to its process, it does to no other.

The launching side: `lanes` chooses a lane's child process for each launch, `keeper` starts, watches
and replaces them, `roster` tells each of every tenant once; `family` is what tenants see. The other
side: `child`. Between them: `wire`, launches in shared memory; `packed`, models.

May import: devices, models.
Start with `lanes.py`.
"""
