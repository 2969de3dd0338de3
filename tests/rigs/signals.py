"""Signals that have arrived when the call returns."""

from __future__ import annotations

import os
import signal

import psutil


def stop(pid: int) -> None:
    """Stops a process. kill(2) returns before that is so: until then it may answer."""
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        pass
