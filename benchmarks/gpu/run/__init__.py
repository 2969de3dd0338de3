"""What `run.sh` runs on a machine with a CUDA device, and what it says of it.

Start with `script.py`."""
