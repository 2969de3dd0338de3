"""What compiled code raises, as the module itself raises it."""

from __future__ import annotations

import re

import torch

_BEGINS = "The following operation failed in the TorchScript interpreter"
_REASON = re.compile(r"^(?:builtins\.)?(\w+): (.*)\Z", re.MULTILINE | re.DOTALL)
# PyTorch's own texts where an operation raises IndexError; TorchScript knows only RuntimeError.
_OF_INDEXES = (
    "index out of range in self",
    "out of range: tried to access index",
    "index_copy_(): index",
    "Target ",
)


def as_raised(error: BaseException) -> BaseException:
    """The error of the operation inside TorchScript's: its kind and its own text.

    TorchScript raises a RuntimeError whose text is its whole interpreter stack, then the reason.
    Any other error is returned as it is.
    """
    text = str(error)
    if not isinstance(error, (RuntimeError, torch.jit.Error)) or not text.startswith(_BEGINS):
        return error
    reason = _REASON.search(text[len(_BEGINS) :])
    if reason is None:
        return error
    name, said = reason.groups()
    kind = IndexError if name == "IndexError" or said.startswith(_OF_INDEXES) else RuntimeError
    return kind(said.strip())
