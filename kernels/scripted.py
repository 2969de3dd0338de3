"""Functions compiled with TorchScript, so that they run without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .tracing import tracing

F = TypeVar("F", bound=Callable[..., object])


def scripted(function: F) -> F:
    """A function, compiled: the same arguments and result, no Python while it runs."""
    with tracing():
        # Newer PyTorch announces TorchScript's retirement. Nothing that replaces it runs a dynamic
        # index without the interpreter lock yet, so the warning tells our users nothing.
        compiled: F = torch.jit.script(function)
    return compiled
