"""A running executor for the contract tests: small, strict, and closed whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from spacetime import _native
from spacetime.errors import UnsupportedError

SOON = 20 * 10**9  # ns; a test that waits this long has failed
MS = 10**6


@dataclass(kw_only=True)
class Rig:
    """An executor with some lanes, one family and one tenant, and threads to be joined."""

    executor: _native.Executor
    lanes: list[_native.Lane]
    family: int
    tenant: int
    servers: list[threading.Thread] = field(default_factory=list)

    def serve(self, lane: _native.Lane, run: Callable[[_native.Launch], list[int]]) -> None:
        """Serves the lane from a thread of its own, as a session does."""

        def loop() -> None:
            lane.enter()
            while (launch := lane.take()) is not None:
                lane.finish(launch, run(launch))
            lane.leave()

        self.servers.append(threading.Thread(target=loop))
        self.servers[-1].start()

    def ended(self, count: int) -> list[_native.Completion]:
        """The next `count` completions."""
        found: list[_native.Completion] = []
        while len(found) < count:
            more = self.executor.completions(timeout_ns=SOON)
            assert more, f"{len(found)} of {count} requests ended"
            found += more
        return found

    def close(self) -> None:
        self.executor.close(drain=False, timeout_ns=SOON)
        for server in self.servers:
            server.join(timeout=SOON / 10**9)
            assert not server.is_alive()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A backend: what an executor is opened on, and the units it may name."""

    name: str
    device: _native.CudaDevice | None
    units: list[int]
    word: str  # for units, in messages


@pytest.fixture(scope="session")
def why_no_device() -> str:
    """Why there is no CUDA device here; empty where there is one."""
    try:
        _native.CudaDevice.open(0)
    except UnsupportedError as reason:
        return str(reason)
    return ""


@pytest.fixture(params=["cpu", "fake:h200", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def ground(request: pytest.FixtureRequest) -> Ground:
    """Every backend in turn: one contract for all."""
    name: str = request.param
    if name == "cuda:0" and (reason := request.getfixturevalue("why_no_device")):
        pytest.skip(reason)
    if name == "cpu":
        return Ground(name=name, device=None, units=_native.available_cores(), word="cores")
    device: _native.CudaDevice
    if name == "fake:h200":
        device = _native.FakeCudaDevice(_native.FakeDriver("h200"))
    else:
        device = _native.CudaDevice.open(0)
    return Ground(name=name, device=device, units=list(range(len(device.unit_sms))), word="units")


@pytest.fixture
def make(ground: Ground) -> Iterator[Callable[..., Rig]]:
    """Makes rigs: lanes on the backend's units in turn, which all run `function`."""
    rigs: list[Rig] = []

    def rig(
        lanes: int = 1,
        *,
        function: _native.NativeFunction | None = None,
        queue_limit: int = 1024,
        native: bool = True,
        batch: str = "greedy",
        timeline: int = 0,
        capacity: int = 4096,
    ) -> Rig:
        policy = _native.Policy(batch=batch)
        executor = _native.Executor(
            policy, capacity=capacity, timeline=timeline, device=ground.device
        )
        units = ground.units
        added = [executor.add_lane([units[i % len(units)]], native=native) for i in range(lanes)]
        family = executor.add_family([1, 2, 4, 8])
        tenant = executor.add_tenant(family, queue_limit=queue_limit)
        if function is not None:
            executor.set_native(family, function)
        rigs.append(Rig(executor=executor, lanes=added, family=family, tenant=tenant))
        return rigs[-1]

    yield rig
    for made in rigs:
        made.close()


@pytest.fixture
def latch() -> Iterator[_native.Latch]:
    """A function that holds its launches; opened at the end, so that nothing is left hanging."""
    held = _native.Latch()
    yield held
    held.open()
