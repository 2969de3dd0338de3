"""A machine with a driver and without a device: what each command says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import surroundings

OPEN = """
from spacetime.devices.device import open_device
from spacetime.errors import UnsupportedError
try:
    open_device("cuda:0")
except UnsupportedError as reason:
    print(reason)
"""


pytestmark = pytest.mark.usefixtures("no_device")


def run(driver: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(
        command, env=surroundings(driver), capture_output=True, text=True, check=False
    )


def test_a_device_asked_for_is_unsupported_in_one_line(driver: Path) -> None:
    done = run(driver, "-c", OPEN)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "cuda:0" in line
    assert "no CUDA-capable device is detected" in line


def test_tests_for_a_device_are_skipped_with_the_reason(newest: Path) -> None:
    file = str(Path(__file__).parents[1] / "gpu" / "test_partitions.py")
    done = run(newest, "-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", file)
    assert done.returncode == 0, done.stdout
    assert "no CUDA-capable device is detected" in done.stdout
    assert " passed" not in done.stdout


@pytest.mark.parametrize(("series", "cuda"), [("550", "12.4"), ("535", "12.2")])
def test_the_doctor_names_the_driver_and_says_that_there_is_no_device(
    parts: Path, series: str, cuda: str
) -> None:
    if not (parts / series / "done").exists():
        pytest.skip(f"{series} could not be fetched")
    done = run(parts / series, "-m", "spacetime", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {each["name"]: each for each in told["mechanisms"]}
    assert not found["CUDA driver"]["on"]
    assert found["CUDA driver"]["detail"].startswith(f"driver of CUDA {cuda}, no device: ")
    assert "no CUDA-capable device is detected" in found["CUDA driver"]["detail"]
    for feature in ("green contexts", "streams"):
        assert found[feature]["detail"] == "no device opens, see CUDA driver"
    nothing = "no daemon answers: Cannot find MPS control daemon process"
    assert found["MPS daemon"]["detail"] == nothing
    assert told["device"] == "cpu"
