"""Lanes in processes of their own: what a model does to its process, it does to no other.

The launching side: `lanes` keeps a child process for each lane, sends it models once and batches
through shared memory, restarts what died; `family` is what tenants see. The other side: `child`.
"""
