"""Whether two modules are the same but for the values of their weights, as one digest.

Everything a forward could read is part of it: the classes and their code, every attribute, hooks,
the values of constants, which tensors share memory, what functions reach by name, and the example.
Weights (floating point, parameters or in the state dict) count by shape alone. What cannot be told
raises CannotTell, so that equal digests are never a guess. They hold within this process.
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copyreg import _slotnames  # type: ignore[attr-defined]
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as of_modules
from torch.utils import _pytree as pytree

PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(Ellipsis),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
CONTAINERS = (OrderedDict, defaultdict, dict, list, tuple)  # an instance is of the first that fits
NATIVE = (types.BuiltinFunctionType, torch._ops.OpOverload, torch._ops.OpOverloadPacket)
KNOWN = {"torch", *sys.stdlib_module_names}  # packages whose functions are not looked into
CALLS = 2  # functions that functions of a class name, so deep
MOST = 256  # entries of a global table that is compared by value


class CannotTell(Exception):
    """A part of a module that cannot be compared with another one's; the message names it."""


class Likeness:
    """The likeness of one module with one example: `digest`, good as long as `held` is alive.

    `held` is what the digest names by address: code, classes and modules, none of them a weight.
    """

    def __init__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self.held: dict[int, Any] = {}
        self._digest = hashlib.sha256()
        self._numbers: dict[int, int] = {}  # of what was met, which the model keeps alive
        self._storages: dict[int, int] = {}
        hooked = [n for n, v in vars(of_modules).items() if n.startswith("_global_") and v]
        if any("hooks" in name for name in hooked):
            raise CannotTell("hooks of all modules")
        self._say(repr(_surroundings()))
        parts = list(model.modules())
        for part in parts:
            self._number(part)
        for part in parts:
            self._module(part, own=True)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        self._say(repr(spec))
        for leaf in leaves:
            self._value(leaf[:0] if isinstance(leaf, Tensor) else leaf)
            self._say(repr(leaf.stride()) if isinstance(leaf, Tensor) else "")
        self.digest = self._digest.digest()

    def _say(self, text: str | bytes) -> None:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        self._digest.update(b"%d:" % len(data))
        self._digest.update(data)

    def _number(self, thing: Any) -> bool:
        """Whether it is met for the first time; says its number otherwise."""
        if id(thing) in self._numbers:
            self._say(f"again {self._numbers[id(thing)]}")
            return False
        self._numbers[id(thing)] = len(self._numbers)
        return True

    def _same(self, thing: Any) -> None:
        """By identity: equal only to itself, as long as it is held."""
        self.held[id(thing)] = thing
        self._say(f"this {id(thing)}")

    # Modules and their tensors

    def _module(self, part: nn.Module, *, own: bool) -> None:
        """own: its tensors are the model's, as the exporter finds them, and not constants."""
        if isinstance(part, (torch.jit.ScriptModule, fx.GraphModule)):
            raise CannotTell(f"a {type(part).__name__}")
        self._class(type(part))
        for name, value in vars(part).items():
            if "_hooks" in name:
                if value:
                    raise CannotTell(f"{type(part).__name__} has {name}")
                continue
            self._say(name)
            if name in {"_parameters", "_buffers"}:
                left = part._non_persistent_buffers_set if name == "_buffers" else ()
                for key, tensor in value.items():
                    self._say(key)
                    known = own and tensor is not None and tensor.is_floating_point()
                    self._tensor(tensor, values=not known or key in left)
            elif name == "_modules":
                for key, child in value.items():
                    self._say(key)
                    self._value(child)
            else:
                self._value(value)

    def _tensor(self, x: Tensor | None, *, values: bool) -> None:
        if x is None:
            self._say("none")
            return
        if type(x) not in {Tensor, nn.Parameter} or x.layout is not torch.strided:
            raise CannotTell(f"a tensor of type {type(x).__name__}")
        if x.is_quantized or x.device.type != "cpu":
            raise CannotTell(f"a tensor on {x.device}, or a quantised one")
        at = x.untyped_storage()._cdata
        place = self._storages.setdefault(at, len(self._storages))
        facts = (type(x).__name__, x.dtype, tuple(x.shape), x.stride(), x.storage_offset(), place)
        self._say(repr((*facts, x.requires_grad, x.is_conj(), x.is_neg())))
        if vars(x):
            self._value(vars(x))
        if values:
            self._say(data_of(x))

    # Anything else that an attribute may hold

    def _value(self, value: Any) -> None:
        kind = type(value)
        self._say(kind.__name__)
        if kind in PLAIN:
            self._say(repr(value))
        elif isinstance(value, Enum):
            self._same(kind)
            self._say(value.name)
        elif isinstance(value, Tensor):
            self._tensor(value, values=True)
        elif kind is tuple or kind is torch.Size:
            self._items(value)
        elif kind in {set, frozenset}:
            self._set(value)
        elif kind.__module__ == "numpy":
            self._array(value)
        elif isinstance(value, (type, types.FunctionType, types.ModuleType, *NATIVE)):
            self._code(value)
        elif self._number(value):
            self._object(value)

    def _code(self, value: Any) -> None:
        """Classes, functions and modules, as attributes."""
        if isinstance(value, types.FunctionType):
            self._function(value, CALLS, strict=True)
        elif isinstance(value, type):
            self._class(value)
        else:
            of = getattr(value, "__self__", None)  # of a method in C: its state cannot be seen
            if not isinstance(of, (types.ModuleType, type, type(None))):
                raise CannotTell(f"a method of a {type(of).__name__}")
            self._same(value)

    def _object(self, value: Any) -> None:
        """What can be changed, or hold itself: said once."""
        if isinstance(value, nn.Module):  # one that is no part of the model: all its tensors count
            self._module(value, own=False)
        elif isinstance(value, types.MethodType):
            self._items((value.__self__, value.__func__))
        elif type(value) is partial:
            self._items((value.func, value.args, value.keywords))
        else:
            self._instance(value)

    def _instance(self, value: Any) -> None:
        kind = type(value)
        self._class(kind)
        base: Any = next((b for b in CONTAINERS if isinstance(value, b)), None)
        if base is None:
            _all_in_attributes(value)
        elif issubclass(base, dict):
            self._items([x for pair in base.items(value) for x in pair])
            self._value(getattr(value, "default_factory", None))
        else:
            self._items(list(base.__iter__(value)))
        for name in _slotnames(kind):
            self._say(name)
            self._value(getattr(value, name, None))
        for name, held in getattr(value, "__dict__", {}).items():
            self._say(name)
            self._value(held)

    def _items(self, values: Any) -> None:
        self._say(str(len(values)))
        for value in values:
            self._value(value)

    def _set(self, values: Any) -> None:
        if not all(type(x) in PLAIN for x in values):
            raise CannotTell("a set of objects")
        self._say(repr(sorted(map(repr, values))))

    def _array(self, value: Any) -> None:
        if getattr(value, "dtype", None) is None or value.dtype.hasobject:
            raise CannotTell(f"a numpy {type(value).__name__}")
        self._say(f"{value.dtype!r} {value.shape} {value.strides}")
        self._say(value.tobytes())

    # Code: classes, functions and what these reach by name

    def _class(self, kind: type) -> None:
        self._same(kind)
        for base in kind.__mro__:
            if not self._number(base):
                continue
            for name, value in list(vars(base).items()):
                for function in _functions_in(value):
                    self._say(name)
                    self._function(function, CALLS)
                if not name.startswith("__") and not _trusted(base):
                    self._say(name)
                    self._reached(value, frozenset(), 0)

    def _function(self, function: types.FunctionType, calls: int, *, strict: bool = False) -> None:
        """With the functions that it names, so many calls deep. strict: its closure counts by
        value, or cannot be told."""
        code = function.__code__
        self._same(code)
        if not self._number(function):
            return
        names = frozenset(_names_in(code))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not yet filled
                defaults.append(cell.cell_contents)
        for value in defaults:
            self._value(value) if strict else self._reached(value, names, calls)
        if not _trusted(function):
            for name in sorted(names & function.__globals__.keys()):
                self._say(name)
                self._reached(function.__globals__[name], names, calls)

    def _reached(self, value: Any, names: frozenset[str], calls: int) -> None:
        """By value where it is plain; else by identity, and what code names of it."""
        if type(value) in PLAIN or (isinstance(value, CONTAINERS) and _all_plain(value)):
            self._value(value)
        elif isinstance(value, Tensor):
            self._tensor(value, values=True)
        elif isinstance(value, types.FunctionType) and calls:
            self._function(value, calls - 1)
        else:
            code = isinstance(value, types.FunctionType)
            self._same(value.__code__ if code else value)
            known = isinstance(value, (types.ModuleType, type)) and _trusted(value)
            held = {} if known else getattr(value, "__dict__", {})
            for name in sorted(held.keys() & names):
                if type(held[name]) in PLAIN:
                    self._say(name)
                    self._value(held[name])


def data_of(x: Tensor) -> bytes:
    """The bytes of a tensor on the CPU, row by row."""
    whole = x.detach().resolve_conj().resolve_neg().contiguous().flatten()
    data: bytes = whole.view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    return data


def _surroundings() -> tuple[Any, ...]:
    """What PyTorch does differently by switches of its own."""
    return (
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_float32_matmul_precision(),
    )


def _all_in_attributes(value: Any) -> None:
    """Raises CannotTell where Python's own copying finds more in an object than its attributes."""
    kind: Any = type(value)
    own = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    try:
        if own:
            object.__reduce_ex__(value, 2)
    except Exception as why:
        raise CannotTell(f"a {kind.__module__}.{kind.__name__}") from why
    if not own:
        raise CannotTell(f"a {kind.__module__}.{kind.__name__}")


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    """What a class holds as code."""
    if isinstance(value, property):
        parts: tuple[Any, ...] = (value.fget, value.fset)
    else:
        parts = (value.__func__ if isinstance(value, (classmethod, staticmethod)) else value,)
    yield from (x for x in parts if isinstance(x, types.FunctionType))


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names_in(inner)


def _trusted(thing: Any) -> bool:
    """Whether it is Python's or PyTorch's own, which nobody changes between two tenants."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return str(name).partition(".")[0] in KNOWN


def _all_plain(value: Any) -> bool:
    items = [*value, *value.values()] if isinstance(value, Mapping) else value
    return len(items) <= MOST and all(type(x) in PLAIN for x in items)
