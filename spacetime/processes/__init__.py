"""Lanes in processes of their own: what a model does to its process, it does to no other.

In the launching process `lanes` chooses a lane's child process for each launch, `keeper` starts,
watches and replaces child processes, and `roster` sends every tenant to each; `backend` and
`family` are what a session sees. `child` is the process of a lane, and `hosted` holds its models.
Launches travel in shared memory as `wire` lays them out, models as `packed` does.

May import: devices, models.
Start with `backend.py`; then `lanes.py`.
"""
