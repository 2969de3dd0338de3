"""Tracing that leaves other threads alone.

While torch.fx traces, it replaces methods of `nn.Module` for the whole process. An eager module
that another thread runs meanwhile would be traced too, and fail. Tenants are added while others
run, so the replacements are made to answer only the thread that traces. Likewise torch.export puts
fake tensors into the module that it is given; so it is given a shell of the module.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.fx import _symbolic_trace as fx_trace

_GROWS = (list, dict, set)  # attributes in which a forward may leave fake tensors


@contextmanager
def confined() -> Iterator[None]:
    """Inside the block this thread alone sees what torch.fx patches. Use it inside `tracing`."""
    patcher: Any = fx_trace._Patcher
    patch_method = patcher.patch_method

    def patch_confined(
        self: Any, cls: type, name: str, new: Callable[..., Any], deduplicate: bool = True
    ) -> None:
        old, owner = getattr(cls, name), threading.get_ident()

        def chosen(*args: Any, **kwargs: Any) -> Any:
            return (new if threading.get_ident() == owner else old)(*args, **kwargs)

        patch_method(self, cls, name, chosen, deduplicate)

    patcher.patch_method = patch_confined
    try:
        yield
    finally:
        patcher.patch_method = patch_method


def shell(model: nn.Module) -> nn.Module:
    """A model of new module objects that hold the same tensors and attributes."""
    return _shell(model, {})


def _shell(module: nn.Module, shells: dict[nn.Module, nn.Module]) -> nn.Module:
    """The shell of one module; `shells` holds those made before, so that a shared module stays
    one.
    """
    if module not in shells:
        # Not the class's own __new__: that of a graph module makes a class without its forward.
        shells[module] = twin = object.__new__(type(module))
        kept = {k: copy.copy(v) if type(v) in _GROWS else v for k, v in vars(module).items()}
        twin.__dict__ = kept | {
            "_parameters": dict(module._parameters),
            "_buffers": dict(module._buffers),
        }
        children = module._modules.items()
        twin.__dict__["_modules"] = {
            name: None if child is None else _shell(child, shells) for name, child in children
        }
    return shells[module]
