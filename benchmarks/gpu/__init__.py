"""Benchmarks of CUDA devices, by torch's own streams, graphs and events; `run.sh` runs them all.

Every way is a launch that enqueues work and returns; a rig (`rig.py`) says how launches are
captured, forked over streams and timed. `DryRig` runs the same code on CPU tensors, to see that it
works. The ways of a layer are in `ways.py`, those of whole models in `contenders.py`, ours in
`ours.py`; the questions that only a driver answers are in `questions.py`.
"""
