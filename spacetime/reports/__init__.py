"""What happened: reports, counters, timelines and recordings.

May import: nothing of the package.
Start with `report.py`.
"""
