"""A model on its way to a lane's process: classes by name, weights as memory that both map.

A lane's process unpickles only what the process that started it has written: nothing that a client
or a file brought. Every lane's process maps the same weights; they are copied where one writes to
them.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import runpy
import struct
import sys
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from spacetime.errors import InvalidInput, reason_of
from spacetime.processes.area import Area, aligned, tensor_at

_HEAD = struct.Struct("=2q")  # bytes of the pickle; where the tensors begin
IMPORTABLE = "one that another process can import (its class in a module, no lambdas in it)"
_PLAIN = (Tensor, nn.Parameter)


class _Packer(pickle.Pickler):
    """Pickles everything but strided tensors, which it lists instead."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Tensor] = []
        self.folders: dict[str, None] = {}  # where the modules of its classes were found
        self._known: dict[int, int] = {}  # by identity: what was tied stays tied

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) not in _PLAIN or obj.layout is not torch.strided or obj.is_quantized:
            return None
        if id(obj) not in self._known:
            self._known[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        number = self._known[id(obj)]
        return number, isinstance(obj, nn.Parameter), obj.requires_grad

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj.__module__ == "__main__" and not main_file():
            where = "an interactive session, standard input or python -c"
            raise pickle.PicklingError(f"class {obj.__name__} of {where}")
        if isinstance(obj, torch.jit.ScriptModule):
            saved = io.BytesIO()
            torch.jit.save(obj, saved)
            return _script, (saved.getvalue(),)
        if isinstance(obj, fx.GraphModule) and {"train", "eval"} & set(vars(obj)):
            raise pickle.PicklingError("what torch.export made; add the module it was made of")
        if isinstance(obj, type | FunctionType) and (folder := _folder(obj.__module__)) is not None:
            self.folders[folder] = None
        return NotImplemented


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor], main: str) -> None:
        super().__init__(file)
        self._tensors = tensors
        self._made: dict[int, Tensor] = {}
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            _import_main(self._main)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        number, parameter, learns = pid
        if number not in self._made:
            x = self._tensors[number]
            self._made[number] = nn.Parameter(x, learns) if parameter else x
        return self._made[number]


def pack(tenant: str, model: nn.Module, example: Any) -> Area:
    """`model` and its `example` call in shared memory. Raises InvalidInput where it cannot go."""
    file = io.BytesIO()
    packer = _Packer(file)
    try:
        packer.dump((model, example))
    except Exception as why:
        raise InvalidInput(tenant, "model", IMPORTABLE, reason_of(why)) from None
    shapes = [(x.dtype, tuple(x.shape)) for x in packer.tensors]
    listed = pickle.dumps((main_file(), [*packer.folders], shapes))
    texts = struct.pack("=q", len(listed)) + listed + file.getvalue()
    begin = at = aligned(_HEAD.size + len(texts))
    places = []
    for x in packer.tensors:
        places.append(at)
        at = aligned(at + x.numel() * x.element_size())
    area = Area.new(max(at, 1))
    memory = area.reserve(at)
    _HEAD.pack_into(memory, 0, len(texts), begin)
    memory[_HEAD.size : _HEAD.size + len(texts)] = texts
    for place, x in zip(places, packer.tensors, strict=True):
        tensor_at(memory, place, x.dtype, x.shape).copy_(x.detach())
    return area


def unpack(fd: int, tenant: str = "-") -> tuple[nn.Module, Any]:
    """The model and its example call, its weights mapped, not copied; `fd` stays open.

    Raises InvalidInput where this process cannot make it.
    """
    memory = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
    length, at = _HEAD.unpack_from(memory, 0)
    texts = bytes(memory[_HEAD.size : _HEAD.size + length])
    (listed,) = struct.unpack_from("=q", texts, 0)
    tensors = []
    main, folders, shapes = pickle.loads(texts[8 : 8 + listed])
    sys.path += [folder for folder in folders if folder not in sys.path]
    for dtype, shape in shapes:
        tensors.append(tensor_at(memory, at, dtype, shape))
        at = aligned(at + tensors[-1].numel() * dtype.itemsize)
    try:
        model, example = _Unpacker(io.BytesIO(texts[8 + listed :]), tensors, main).load()
    except BaseException as why:  # of the script that is run again, sys.exit() too
        raise InvalidInput(tenant, "model", IMPORTABLE, _named(why)) from why
    return model, example


def _named(why: BaseException) -> str:
    return f"{type(why).__name__}: {reason_of(why)}"


def _script(saved: bytes) -> Any:
    return torch.jit.load(io.BytesIO(saved))  # type: ignore[no-untyped-call]


def _folder(module: str) -> str | None:
    """Where Python found a module's outermost package: by now it may be on the path no more."""
    file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None)
    if file is None:
        return None
    place = Path(file).resolve()
    return str(place.parents[1] if place.stem == "__init__" else place.parent)


def main_file() -> str:
    """The script this process runs; empty where it runs none."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return os.path.abspath(file) if file and os.path.isfile(file) else ""  # `<stdin>` is none


@lru_cache(maxsize=1)
def _import_main(file: str) -> None:
    """Runs the launching side's script under another name, as multiprocessing does: what stands
    below `if __name__ == "__main__":` does not run again."""
    module = ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
