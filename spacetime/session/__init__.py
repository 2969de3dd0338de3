"""The public objects, `Session` and `Tenant`, and the threads between them and native code.

May import: devices, fusion, kernels, models, processes, reports.
Start with `session.py`: what is public; then `tenant.py`, the way of a request. `backends.py` says
what runs models, `layout.py` what decides lanes.
"""
