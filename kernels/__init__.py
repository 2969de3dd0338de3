"""Super-kernels: one operation over slots, each slot with the weights of its own tenant. And what
loads and probes a device: `stress_cpu.py`, `cuda/`.

A kernel takes `rows` and `run`, then its operands. `rows` is int64 [S], the row of the stacks that
each slot uses. `run` is an int64 scalar: the first row where `rows` is a run of consecutive rows,
else -1. A stack is [T, ...], one row for each tenant; x is [S*k, ...], k samples for each slot, a
slot's samples side by side.

The files here run on any device that PyTorch has. `triton/` and `cuda/` are for CUDA devices.
`reference.py` holds the tests' plain twins.

May import: nothing of the package, for kernels are installed under another name too; hence the
relative imports.
Start with `slots.py`, then `linear.py`.
"""
