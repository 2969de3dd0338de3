"""Fails every call of the driver in turn, in every scenario.

Each time: the error names the call that failed, every accepted request ends exactly once, nothing
hangs, and no object of the driver is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from spacetime import _native
from spacetime.errors import DriverError, UnsupportedError

from .conftest import SOON

INVALID_VALUE = 1
OUT_OF_MEMORY = 2
ILLEGAL_ADDRESS = 700
ROW = 64  # bytes of an input and of an output row
# Calls that destroy: where one fails without having been carried out, its object lives on.
DESTROYS = {
    "cuDevicePrimaryCtxRelease",
    "cuGreenCtxDestroy",
    "cuStreamDestroy",
    "cuEventDestroy",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuModuleUnload",
    "cuMemFree",
    "cuMemFreeHost",
    "cuMemUnmap",
    "cuMemRelease",
    "cuMemAddressFree",
    "cuStreamEndCapture",  # the capture goes on
}


@dataclass
class Stage:
    """What a scenario plays on: an opened device and its executor, closed at the end."""

    device: _native.FakeCudaDevice
    executor: _native.Executor
    lanes: list[_native.Lane] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    kept: list[object] = field(default_factory=list)

    def lane(self, units: list[int]) -> _native.SmPartition:
        lane = self.executor.add_lane(units, native=True)
        self.lanes.append(lane)
        return _native.partition_of(lane)

    def runner(self, partition: _native.SmPartition, buckets: list[int]) -> _native.Runner:
        """A runner of graphs that take time and do nothing."""
        runner = _native.Runner(
            self.device, partition, inputs=[ROW], outputs=[ROW], buckets=buckets
        )
        for bucket in buckets:
            runner.add(bucket, self.device.capture(partition, flops=1e6, nbytes=1e6))
        return runner

    def submit(self, tenant: int, samples: int = 1, *, on_device: bool = False) -> None:
        memory = _native.DeviceMemory if on_device else _native.PinnedMemory
        x, y = (memory(self.device, ROW * samples) for _ in range(2))
        payload = _native.Payload(0, samples, [x.address], [y.address], on_device=on_device)
        self.kept += [x, y, payload]
        self.executor.submit(tenant, payload.token, samples=samples)
        self.accepted.append(payload.token)


def serve_some(stage: Stage) -> None:
    """Two lanes of one family, graphs of two sizes, requests of several sizes."""
    family = stage.executor.add_family([1, 4])
    for number, units in enumerate(([0], [1, 2])):
        runner = stage.runner(stage.lane(units), [1, 4])
        stage.executor.set_native(family, runner.function, lane=number)
    tenant = stage.executor.add_tenant(family)
    for samples in (1, 2, 4, 9, 1):
        stage.submit(tenant, samples)


def serve_from_device_memory(stage: Stage) -> None:
    family = stage.executor.add_family([2])
    stage.executor.set_native(family, stage.runner(stage.lane([0]), [2]).function)
    tenant = stage.executor.add_tenant(family)
    for _ in range(3):
        stage.submit(tenant, on_device=True)


def hold_weights(stage: Stage) -> None:
    """Rows that come and go, two of them left to the arena's end."""
    arena = _native.Arena(stage.device, row_bytes=100, rows=8)
    stage.kept.append(arena)
    arena.map(3)
    arena.map(0)
    arena.unmap(3)
    arena.map(3)


def open_many_sizes(stage: Stage) -> None:
    """More sizes than are kept: contexts are made, used again and evicted."""
    for first in range(4):
        for last in range(first + 2, 8):
            stage.device.partition([first, last])
    assert stage.device.partition([0, 2]).bounded


SCENARIOS = [serve_some, serve_from_device_memory, hold_weights, open_many_sizes]


@dataclass
class Outcome:
    """What was seen of a scenario: an error that was raised, and how each request ended."""

    raised: DriverError | UnsupportedError | None = None
    accepted: list[int] = field(default_factory=list)
    ended: list[_native.Completion] = field(default_factory=list)


def new_driver() -> _native.FakeDriver:
    return _native.FakeDriver("h200", memory_bytes=2**28)


def play(driver: _native.FakeDriver, scenario: Callable[[Stage], None]) -> Outcome:
    outcome = Outcome()
    try:
        device = _native.FakeCudaDevice(driver)
    except (DriverError, UnsupportedError) as error:
        outcome.raised = error.with_traceback(None)
        return outcome
    stage = Stage(device, _native.Executor(_native.Policy(batch="greedy"), device=device))
    try:
        scenario(stage)
    except (DriverError, UnsupportedError) as error:
        outcome.raised = error.with_traceback(None)  # whose frames would hold objects
    assert stage.executor.close(drain=True, timeout_ns=SOON), "a launch never ended"
    while (records := stage.executor.completions(timeout_ns=SOON)) is not None:
        assert records, "a request never ended"
        outcome.ended += records
    outcome.accepted = stage.accepted
    return outcome


def calls_of(scenario: Callable[[Stage], None]) -> Iterator[int]:
    """Numbers of the calls that the scenario makes when all goes well."""
    driver = new_driver()
    outcome = play(driver, scenario)
    assert outcome.raised is None
    assert {end.outcome for end in outcome.ended} <= {"ok"}
    assert set(driver.live.values()) == {0}, driver.live
    yield from range(1, driver.calls + 1)


def named(error: DriverError | UnsupportedError) -> tuple[str, int]:
    """The call that failed and its code; a device or a partition that is refused names them too."""
    if isinstance(error, DriverError):
        return error.call, error.code
    found = re.search(r"(cu\w+) failed with (\d+)", str(error))
    assert found is not None, error
    return found[1], int(found[2])


def check(scenario: Callable[[Stage], None], nth: int, code: int, *, sticky: bool) -> None:
    driver = new_driver()
    driver.fail(nth, code, sticky=sticky)
    outcome = play(driver, scenario)
    struck = set(driver.failed)
    assert sorted(end.token for end in outcome.ended) == sorted(outcome.accepted)
    errors = [_native.driver_failure(end.code) for end in outcome.ended if end.code]
    if outcome.raised is not None:
        errors.append(named(outcome.raised))
    assert {failed for _, failed in errors} <= {code}
    if not sticky:
        assert {call for call, _ in errors} <= struck
    left = {kind: count for kind, count in driver.live.items() if count}
    if not struck & DESTROYS:
        assert left == {}, (nth, struck, left)


@pytest.mark.parametrize("code", [INVALID_VALUE, OUT_OF_MEMORY])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_call_that_fails_is_told_and_leaves_nothing(
    scenario: Callable[[Stage], None], code: int
) -> None:
    for nth in calls_of(scenario):
        check(scenario, nth, code, sticky=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_device_lost_at_any_call_ends_every_request(scenario: Callable[[Stage], None]) -> None:
    for nth in calls_of(scenario):
        check(scenario, nth, ILLEGAL_ADDRESS, sticky=True)


def test_the_sweep_has_calls_to_fail_and_requests_to_lose() -> None:
    driver = new_driver()
    outcome = play(driver, serve_some)
    assert len(outcome.ended) == len(outcome.accepted) == 5
    assert driver.calls > 100
