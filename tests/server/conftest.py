"""The server all tests share, and the model that holds a lane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served_models import Gate
from serving import serving

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
