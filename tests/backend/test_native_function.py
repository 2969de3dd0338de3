"""A C function from elsewhere runs launches; it sees what `csrc/rt/launch.h` promises."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from spacetime import _native

from .conftest import Rig

NAME = b"st_native_function"  # a capsule does not copy its name


class CLaunch(ctypes.Structure):
    """`st_launch`."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("lane", ctypes.c_uint32),
        ("family", ctypes.c_uint32),
        ("samples", ctypes.c_uint32),
        ("bucket", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("tokens", ctypes.POINTER(ctypes.c_uint64)),
        ("tenants", ctypes.POINTER(ctypes.c_uint32)),
        ("request_samples", ctypes.POINTER(ctypes.c_uint32)),
    )


SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(CLaunch))
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def test_a_c_function_sees_the_launch_and_its_context(make: Callable[..., Rig]) -> None:
    seen: list[tuple[int | None, list[int], list[int], int, int]] = []

    def call(context: int | None, pointer: ctypes._Pointer[CLaunch]) -> int:
        launch = pointer.contents
        tokens, samples = (
            list(array[: launch.count]) for array in (launch.tokens, launch.request_samples)
        )
        seen.append((context, tokens, samples, launch.samples, launch.bucket))
        return 9

    thunk = SIGNATURE(call)
    context = ctypes.c_int(5)
    function = _native.NativeFunction.from_capsule(
        new_capsule(ctypes.cast(thunk, ctypes.c_void_p), NAME, None),
        new_capsule(ctypes.addressof(context), NAME, None),
    )
    rig = make(1, function=function)
    del function
    rig.executor.submit(rig.tenant, 2**40, samples=3)
    (end,) = rig.ended(1)
    assert (end.outcome, end.code) == ("failed", 9)
    assert seen == [(ctypes.addressof(context), [2**40], [3], 3, 4)]
