"""The version of this release: the one place where it is written in Python.

`pyproject.toml` reads it without importing the package; `setup.py` writes it into the files for
CMake and pkg-config, and refuses a header of the C API that names another.
"""

__version__ = "0.1.0"
