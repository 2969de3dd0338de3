"""Super-kernels in Triton, for CUDA devices: a matrix product that serves linear layers and 2-d
convolutions, a depthwise convolution, and a convolution fed by the tensor memory accelerator.

`available` says whether Triton is installed; the other files of this folder import it.
Start with `linear.py` and `convolution.py`, which are called; then `launch.py` and `gemm.py`.
"""

from __future__ import annotations

from importlib.util import find_spec

available = find_spec("triton") is not None
