"""The server all tests share, the model that holds a lane, and where the journal goes."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from served_models import Gate
from serving import serving

from spacetime.server import journal
from spacetime.server.serve import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def gate() -> Iterator[type[Gate]]:
    """The model `gate`, shut; whatever it holds goes on at the end."""
    Gate.held.clear()
    Gate.open.clear()
    yield Gate
    Gate.open.set()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the journal goes meanwhile."""
    loggers = [journal.log, *map(logging.getLogger, journal.LIBRARIES)]
    kept = [(one.handlers[:], one.propagate) for one in loggers]
    raising = logging.raiseExceptions
    stream = io.StringIO()
    journal.write_to(stream)
    yield stream
    for one, (handlers, propagates) in zip(loggers, kept, strict=True):
        one.handlers[:] = handlers
        one.propagate = propagates
    logging.raiseExceptions = raising
