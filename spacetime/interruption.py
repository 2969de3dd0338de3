"""Ctrl-C and SIGTERM: taken only where nothing is half done, and obeyed whatever runs."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 128 + signal.SIGINT  # the exit status
PATIENCE_S = 0.7  # for what is being left: files, terminals, processes
_SHOW_CURSOR = b"\x1b[?25h"


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


@contextmanager
def obeyed(patience_s: float = PATIENCE_S) -> Iterator[Callable[[], bool]]:
    """While entered, the first Ctrl-C ends the process; yields whether one came.

    It raises KeyboardInterrupt in the main thread. Where that has not left within `patience_s`, as
    in native code that does not look at signals, the process ends all the same. Ctrl-C that is
    ignored, or that an Interruption takes meanwhile, is left to those.
    """
    came, left = threading.Event(), threading.Event()

    def note(number: int, frame: FrameType | None) -> NoReturn:
        came.set()
        raise KeyboardInterrupt

    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came.is_set
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    kept = _terminal()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, note)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as told:
            while number := told.read(1):
                ours = number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is note
                if ours and not left.wait(patience_s):
                    with suppress(OSError):
                        os.write(2, b"\nspacetime: interrupted\n")
                    end_now(INTERRUPTED, kept)

    threading.Thread(target=watch, name="spacetime-interruption", daemon=True).start()
    try:
        yield came.is_set
    finally:
        left.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(before)
        os.close(writer)  # which ends the thread


def end_now(status: int, terminal: Any = None) -> NoReturn:
    """Ends the process, its children first, and shows the cursor again on a terminal.

    An interpreter that shuts down meets threads in the middle of native code, and aborts
    (`terminate called without an active exception`); this does not shut it down.
    """
    with suppress(OSError, termios.error):
        if terminal is not None and termios.tcgetattr(0) != terminal:
            termios.tcsetattr(0, termios.TCSANOW, terminal)
    for fd in (1, 2):
        with suppress(OSError):
            if os.isatty(fd):
                os.write(fd, _SHOW_CURSOR)
    for child in _children():
        with suppress(OSError):
            (os.killpg if os.getpgid(child) == child else os.kill)(child, signal.SIGTERM)
    os._exit(status)


def _terminal() -> Any:
    """How the terminal on the input is set; None where there is none."""
    try:
        return termios.tcgetattr(0)
    except (OSError, termios.error):
        return None


def _children() -> Iterable[int]:
    """The processes that this one has started, also through multiprocessing's server of forks."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found |= {int(word) for word in path.read_text(encoding="ascii").split()}
    if (started := sys.modules.get("multiprocessing")) is not None:
        found |= {child.pid for child in started.active_children() if child.pid is not None}
    return found
