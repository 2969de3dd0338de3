"""Benchmarks: each `bench_<topic>` prints a table, draws a picture and records JSON.

They measure and never assert; `compare` shows what changed between two records.
"""
