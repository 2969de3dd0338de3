"""Progress of long work: on a terminal's error stream, gone when it is done; nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")


def bars() -> Progress:
    """What turns, how far it is, and for how long it has run; it fits 80 columns."""
    screen = Console(stderr=True)
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(),
        console=screen, transient=True, disable=not screen.is_terminal, refresh_per_second=4,
    )  # fmt: skip


@contextmanager
def working(what: str, total: float | None = None) -> Iterator[Callable[..., None]]:
    """Shows that `what` is under way; yields `done(so_far, what)`, of `total` where that is known.

    Without a total there is no bar, only what turns and the time.
    """
    screen = Console(stderr=True)
    columns = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    progress = bars() if total is not None else Progress(
        *columns, console=screen, transient=True, disable=not screen.is_terminal
    )  # fmt: skip
    with progress:
        task = progress.add_task(what, total=total)

        def done(so_far: float, now: str = what) -> None:
            progress.update(task, completed=so_far, description=now)

        yield done


def track(items: Collection[Item], what: str, *, quiet: bool = False) -> Iterator[Item]:
    """The items, and how many of them are done; `quiet` shows nothing on a terminal either."""
    if quiet:
        yield from items
        return
    with working(what, len(items)) as done:
        for number, item in enumerate(items):
            yield item
            done(number + 1)
