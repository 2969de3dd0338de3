"""A workload live on a device: sessions that run a plan, the thread of their controller, open-loop
runs, and the profiler that measures models.

May import: devices, models, plan, planners, profiles, reports, session, workload.
Start with `planned_session.py`; `from_files.py` opens one for the commands `run` and `serve`.
"""
