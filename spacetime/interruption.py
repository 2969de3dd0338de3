"""Ctrl-C and SIGTERM, taken only where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While entered, the first signal of `SIGNALS` is noted; window() raises KeyboardInterrupt.

    A second one raises wherever the main thread is. Signals that are ignored stay ignored, and in
    any other thread than the main one nothing is noted: Python leaves signals to that one.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._open = False
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def window(self) -> Iterator[None]:
        """Where the first signal may raise: also one that came before."""
        self._open = True
        try:
            if self.number is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def _note(self, number: int, _: FrameType | None) -> None:
        again, self.number = self.number is not None, signal.Signals(number)
        if again or self._open:
            raise KeyboardInterrupt

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
