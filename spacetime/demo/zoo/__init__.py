"""Models to try the runtime on: families with different weights, real pictures, no download.

Start with `exhibits.py`: its `load` is the one entry.
"""
