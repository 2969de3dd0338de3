"""Super-kernels in Triton, for CUDA devices: a matrix product that serves linear layers and 2-d
convolutions, and a depthwise convolution of its own.

`available` says whether Triton is installed; the other modules of this folder import it.
"""

from __future__ import annotations

from importlib.util import find_spec

available = find_spec("triton") is not None
