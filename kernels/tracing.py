"""PyTorch's tracers: one thread at a time, and without their remarks.

torch.export, torch.jit and torch.fx change what is global to PyTorch while they work, so two
threads that trace break each other. What the tracers say meanwhile (warnings, log records,
half-made graphs on standard error) is dropped for the tracing thread alone; other threads are
heard.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import torch

_one_at_a_time = threading.RLock()


@contextmanager
def tracing() -> Iterator[None]:
    """The block inside which PyTorch traces, exports or compiles to TorchScript; one thread at a
    time.
    """
    with _one_at_a_time, _unheard():
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Afterwards the caller's random numbers go on as if nothing inside had drawn any."""
    numpy: Any = sys.modules.get("numpy.random")
    before = torch.get_rng_state(), random.getstate()
    drawn = None if numpy is None else numpy.get_state()
    try:
        yield
    finally:
        # Only what has moved: a number that another thread drew meanwhile would come again.
        if not torch.equal(torch.get_rng_state(), before[0]):
            torch.set_rng_state(before[0])
        if random.getstate() != before[1]:
            random.setstate(before[1])
        if drawn is not None and repr(numpy.get_state()) != repr(drawn):
            numpy.set_state(drawn)


@contextmanager
def _unheard() -> Iterator[None]:
    """Drops the warnings and the log records of PyTorch that this thread makes inside the block."""
    mine = threading.get_ident()
    # A filter of our own, not warnings.catch_warnings, which puts back what others changed since.
    # Python asks its second item whether it matches a warning's text; the types know strings only.
    quiet: Any = ("ignore", _Here(mine), Warning, None, 0)
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.copy().items()
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger)
    ]
    dropped = _Elsewhere(mine)
    warnings.filters.insert(0, quiet)  # type: ignore[attr-defined]
    _heed()
    for logger in loggers:
        logger.addFilter(dropped)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(dropped)
        if quiet in warnings.filters:
            warnings.filters.remove(quiet)  # type: ignore[attr-defined]
        _heed()


@contextmanager
def unprinted() -> Iterator[None]:
    """Keeps this thread's half-made graphs, which torch.export prints, off standard error."""
    stream = sys.stderr
    ours: Any = _WithoutGraphs(stream, threading.get_ident())
    sys.stderr = ours
    try:
        yield
    finally:
        if sys.stderr is ours:  # nobody redirected it meanwhile
            sys.stderr = stream


def _heed() -> None:
    """Make Python ask its warning filters again; it keeps, by module, what they said last."""
    getattr(warnings, "_filters_mutated", lambda: None)()


class _Here:
    """A pattern that matches every warning of one thread."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def match(self, text: str) -> bool:
        return threading.get_ident() == self._thread


class _Elsewhere(logging.Filter):
    """A filter that lets the log records of other threads through."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


class _WithoutGraphs:
    """A stream without the half-made graphs that torch.export prints where it fails."""

    def __init__(self, stream: TextIO, thread: int) -> None:
        self._stream = stream
        self._thread = thread

    def write(self, text: str) -> int:
        if "def forward(" in text and threading.get_ident() == self._thread:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
