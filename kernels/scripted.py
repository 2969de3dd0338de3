"""Compile a function with TorchScript, so that it runs without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .tracing import tracing

F = TypeVar("F", bound=Callable[..., object])


def scripted(function: F) -> F:
    """scripted(f) is f compiled: same arguments, same result, no Python while it runs."""
    with tracing():
        # Newer PyTorch announces TorchScript's retirement. Nothing that replaces it runs a dynamic
        # index without the interpreter lock yet, so the warning tells our users nothing.
        compiled: F = torch.jit.script(function)
    return compiled
