"""Benchmarks: each `bench_<topic>` prints a table, draws a picture and records JSON.

They measure and never assert; `compare` shows what changed between two records. A folder with the
name of a topic is that topic's own; `driving/` is what several topics load servers and sessions
with, `studies/` the papers' set-ups, `gpu/` the topics on a CUDA device, `results/` the records.
"""
