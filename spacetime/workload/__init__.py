"""Who asks, how often and when: tenants and their objectives, files, recorded arrivals, and the
sender of open-loop load.

May import: nothing of the package.
Start with `workload.py`; `workload_file.py` reads it.
"""
