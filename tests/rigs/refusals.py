"""Errors that a process of a pool raises, which imports this module and no test."""

from __future__ import annotations

import spacetime as st


def refused(name: str) -> None:
    raise {
        "memory": st.OutOfMemory("t", 10, 5, "the device"),
        "lane": st.LaneLost(3, "it fell"),
        "input": st.InvalidInput("t", "slo_ms", "a positive number", "-1"),
        "model": st.ModelError("t", ZeroDivisionError("by zero")),
    }[name]
