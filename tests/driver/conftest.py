"""Parts of NVIDIA's drivers, as tests/driver/run.sh fetched them; skipped where it could not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SERIES = ("550", "535")
HEADERS = ("13.0.96", "13.5.37")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.driver)


@pytest.fixture(scope="session")
def parts() -> Path:
    """The folder with what was fetched."""
    if "ST_DRIVER" not in os.environ:
        pytest.skip("ST_DRIVER names no folder: make driver does")
    return Path(os.environ["ST_DRIVER"]).resolve()


@pytest.fixture(scope="session", params=SERIES)
def driver(request: pytest.FixtureRequest, parts: Path) -> Path:
    """The folder of one driver, which has no device here."""
    return had(parts / request.param)


@pytest.fixture(scope="session")
def newest(parts: Path) -> Path:
    """The folder of the newest driver there is."""
    return had(parts / SERIES[0])


@pytest.fixture(scope="session")
def no_device() -> None:
    """Skips what is about a driver without a device where the kernel has a driver."""
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine runs a driver of its own")


@pytest.fixture(scope="session", params=HEADERS)
def headers(request: pytest.FixtureRequest, parts: Path) -> Path:
    """A folder with a toolkit's cuda.h."""
    (found,) = had(parts / f"cuda-{request.param}").rglob("cuda.h")
    return found.parent


def had(place: Path) -> Path:
    """The folder if it was fetched whole."""
    if not (place / "done").exists():
        pytest.skip(f"{place.name} could not be fetched")
    return place


def surroundings(place: Path) -> dict[str, str]:
    """What leads a process to this driver and its programs, and to no daemon of the machine."""
    programs = [str(place / "usr" / "bin"), str(place / "usr" / "sbin"), os.environ["PATH"]]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(place),
        "PATH": os.pathsep.join(programs),
        "CUDA_MPS_PIPE_DIRECTORY": str(place / "no-daemon"),
    }
