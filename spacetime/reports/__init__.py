"""What happened in a session: reports, counters, timelines and recordings. The percentiles come
from the scheduler's own histograms, `csrc/sched/histogram.h`.

May import: nothing of the package.
Start with `report.py`.
"""
