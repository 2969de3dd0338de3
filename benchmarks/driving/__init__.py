"""What several benchmarks need.

Servers and how they run (`servers.py`, `processes.py`, `server_process.py`, `booth.py`), load
(`loads.py`), launches without a scheduler (`lanes.py`), timing (`calls.py`, `interleave.py`), and
files that are replaced as a whole (`replaced.py`).
"""
