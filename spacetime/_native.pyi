"""The compiled core. Written by hand; a test compares it with the built module."""

from collections.abc import Sequence
from typing import NamedTuple

ROUTES: tuple[str, ...]
ORDERS: tuple[str, ...]
BATCHES: tuple[str, ...]
DROPS: tuple[str, ...]
PRESETS: tuple[str, ...]

class Policy:
    def __init__(
        self,
        *,
        route: str = ...,
        order: str = ...,
        batch: str = ...,
        timeout_ns: int = ...,
        shed: bool = ...,
        lend: bool = ...,
        max_borrow_ns: int | None = ...,
        first_fit: bool = ...,
        elsa_alpha: float = ...,
        elsa_beta: float = ...,
        straggler_multiple: float = ...,
        straggler_recovery: float = ...,
        straggler_patience: int = ...,
        straggler_lane: int | None = ...,
    ) -> None: ...
    @staticmethod
    def named(name: str) -> Policy: ...
    @property
    def route(self) -> str: ...
    @property
    def order(self) -> str: ...
    @property
    def batch(self) -> str: ...
    @property
    def timeout_ns(self) -> int: ...
    @property
    def shed(self) -> bool: ...
    @property
    def lend(self) -> bool: ...
    @property
    def max_borrow_ns(self) -> int | None: ...
    @property
    def first_fit(self) -> bool: ...
    @property
    def elsa_alpha(self) -> float: ...
    @property
    def elsa_beta(self) -> float: ...
    @property
    def straggler_multiple(self) -> float: ...
    @property
    def straggler_recovery(self) -> float: ...
    @property
    def straggler_patience(self) -> int: ...
    @property
    def straggler_lane(self) -> int | None: ...

# ("drop", request, tenant, reason)
# | ("start", launch, lane, family, bucket, requests, predicted_ns); drops come first.
Action = tuple[object, ...]

class Scheduler:
    def __init__(self, policy: Policy) -> None: ...
    def add_lane(self, *, units: int = ..., borrows: bool = ...) -> int: ...
    def add_family(self, buckets: Sequence[int]) -> int: ...
    def add_tenant(
        self,
        family: int,
        *,
        priority: int = ...,
        weight: float = ...,
        queue_limit: int = ...,
        lane: int | None = ...,
        lane_weights: Sequence[float] = ...,
    ) -> int: ...
    def set_duty(self, lane: int, turns: Sequence[tuple[int, int]]) -> None: ...
    def set_latency(self, family: int, lane: int, bucket: int, latency_ns: int) -> None: ...
    def arrive(
        self,
        request: int,
        tenant: int,
        now: int,
        *,
        samples: int = ...,
        priority: int = ...,
        deadline: int | None = ...,
    ) -> list[Action]: ...
    def arrive_all(
        self, requests: Sequence[tuple[int, int]], now: int, *, deadline: int | None = ...
    ) -> list[Action]: ...
    def cancel(self, request: int, now: int) -> tuple[bool, list[Action]]: ...
    def finish(self, launch: int, now: int) -> list[Action]: ...
    def remove_tenant(self, tenant: int, now: int) -> list[Action]: ...
    def drop_all(self, now: int) -> list[Action]: ...
    def wake(self, now: int) -> list[Action]: ...
    @property
    def next_wake(self) -> int | None: ...
    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> int: ...
    def straggling(self, tenant: int) -> bool: ...
    def predicted_ns(self, family: int, lane: int, samples: int) -> int: ...

class Histogram:
    def __init__(self) -> None: ...
    def record(self, value_ns: int) -> None: ...
    def merge(self, other: Histogram) -> None: ...
    def percentile_ns(self, fraction: float) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def min_ns(self) -> int: ...
    @property
    def max_ns(self) -> int: ...
    @property
    def mean_ns(self) -> float: ...

class TenantStats:
    @property
    def offered(self) -> int: ...
    @property
    def completed(self) -> int: ...
    @property
    def dropped(self) -> dict[str, int]: ...
    @property
    def met(self) -> int: ...
    @property
    def late(self) -> int: ...
    @property
    def batch_sum(self) -> int: ...
    @property
    def tenants_sum(self) -> int: ...
    @property
    def latency(self) -> Histogram: ...
    @property
    def wait(self) -> Histogram: ...

class LaneStats:
    @property
    def launches(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def padding(self) -> int: ...
    @property
    def tenants(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...

class SimTenant:
    def __init__(
        self,
        *,
        family: int,
        priority: int,
        weight: float,
        queue_limit: int,
        lane: int | None,
        lane_weights: Sequence[float],
        process: str,
        rate: float,
        cv: float,
        times: Sequence[int],
        samples: int,
        slo_ns: int | None,
        drops: bool,
        slowdowns: Sequence[tuple[int, int, float]],
    ) -> None: ...

class SimSpec:
    def __init__(
        self,
        *,
        policy: Policy,
        lanes: Sequence[tuple[int, bool]],
        families: Sequence[Sequence[int]],
        latencies: Sequence[tuple[int, int, int, int]],
        tenants: Sequence[SimTenant],
        duty: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        noise: str,
        noise_cv: float,
        horizon_ns: int | None,
        requests: int | None,
        seed: int,
        timeline: bool,
    ) -> None: ...

class SimResult:
    @property
    def tenants(self) -> list[TenantStats]: ...
    @property
    def lanes(self) -> list[LaneStats]: ...
    @property
    def end_ns(self) -> int: ...
    def timeline(self) -> list[Action]: ...

def simulate(spec: SimSpec) -> SimResult: ...

OUTCOMES: tuple[str, ...]  # "ok", "failed", and the words of DROPS
NO_FUNCTION: int  # code of a foreign launch on a native lane
LANE_FAILED: int  # code of a launch whose lane has lost its server

class QueueFullError(RuntimeError): ...
class ClosedError(RuntimeError): ...  # of the executor, or of a removed tenant

class Completion(NamedTuple):
    """How a request ended. `start_ns`, `launch`, `lane` are None if it never started."""

    token: int
    tenant: int
    outcome: str
    code: int  # what its launch returned, if outcome is "failed"
    arrival_ns: int
    start_ns: int | None
    finish_ns: int
    launch: int | None
    lane: int | None
    samples: int  # of its whole launch
    tenants: int  # distinct ones in its launch

class Happening(NamedTuple):
    """A finished launch, or (lane None) a request that ended without one: `id` is its token."""

    id: int
    lane: int | None
    family: int | None
    tenant: int  # of the first request
    outcome: str
    start_ns: int  # the arrival, of a request without launch
    finish_ns: int
    bucket: int
    samples: int
    requests: int
    tenants: int

class NativeFunction:
    @staticmethod
    def noop() -> NativeFunction: ...
    @staticmethod
    def spin(busy_ns: int) -> NativeFunction: ...
    @staticmethod
    def fail(code: int) -> NativeFunction: ...
    @staticmethod
    def from_capsule(function: object, context: object | None = ...) -> NativeFunction:
        """Of a capsule named "st_native_function" (csrc/rt/launch.h), and one of its context."""

class Latch:  # a native function that holds every launch until it is released
    def __init__(self) -> None: ...
    @property
    def function(self) -> NativeFunction: ...
    @property
    def entered(self) -> int: ...
    def release(self, launches: int = ...) -> None: ...
    def open(self) -> None: ...
    def wait_entered(self, launches: int = ..., timeout_ns: int | None = ...) -> bool: ...

class Ticket:
    @property
    def pending(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...  # by outcome
    def wait(self, timeout_ns: int | None = ...) -> bool: ...

class Launch:  # for Python to run; its requests in order, by their tokens
    @property
    def id(self) -> int: ...
    @property
    def lane(self) -> int: ...
    @property
    def family(self) -> int: ...
    @property
    def bucket(self) -> int: ...
    @property
    def samples(self) -> int: ...  # sum of request_samples
    @property
    def tokens(self) -> list[int]: ...
    @property
    def tenants(self) -> list[int]: ...
    @property
    def request_samples(self) -> list[int]: ...

class Lane:
    """A lane. One that was not added `native` is served by a thread that does, in this order,
    enter(), then take() and finish() until take() gives None and `closed`, then leave()."""

    @property
    def id(self) -> int: ...
    @property
    def granted_cores(self) -> list[int]: ...  # read back; empty before its server entered
    @property
    def closed(self) -> bool: ...
    # Binds the calling thread, and threads it starts from now on, to the lane's cores.
    def enter(self) -> None: ...
    def leave(self) -> None: ...
    # The next foreign launch; native ones are run at once. None: time is up, or closed.
    def take(self, timeout_ns: int | None = ...) -> Launch | None: ...
    def finish(self, launch: Launch, statuses: Sequence[int] | None = ...) -> bool:
        """Ends the launch: a status per request, 0 or an error code; None: all 0. False if the
        launch was given up meanwhile (close timed out), ValueError if it is not held."""

    # The server gives up: its launches end with LANE_FAILED, now and from now on.
    def fail(self) -> None: ...

class ExecutorStats:
    @property
    def tenants(self) -> list[TenantStats]: ...
    @property
    def lanes(self) -> list[LaneStats]: ...
    @property
    def failed(self) -> list[int]: ...  # by tenant: requests whose launch returned an error
    @property
    def refused(self) -> list[int]: ...  # by tenant: requests refused for want of room
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> int: ...  # launches
    @property
    def timeline_lost(self) -> int: ...

class Executor:
    """The real-time driver of the scheduler. Without any lane when the first tenant is added,
    launches run on the threads that submit. close() it: the finaliser only drops what waits.
    Everything raises RuntimeError in a forked child."""

    def __init__(self, policy: Policy, *, capacity: int = ..., timeline: int = ...) -> None:
        """capacity: requests in flight; timeline: happenings kept until read, 0 = none."""

    def add_lane(
        self, cores: Sequence[int], *, native: bool = ..., borrows: bool = ...
    ) -> Lane: ...
    def add_family(self, buckets: Sequence[int]) -> int: ...
    def add_tenant(
        self,
        family: int,
        *,
        priority: int = ...,
        weight: float = ...,
        queue_limit: int = ...,
        lane: int | None = ...,
        lane_weights: Sequence[float] = ...,
    ) -> int: ...
    def remove_tenant(self, tenant: int) -> None: ...
    def set_native(self, family: int, function: NativeFunction) -> None: ...
    def set_latency(self, family: int, lane: int, bucket: int, latency_ns: int) -> None: ...
    def set_duty(self, lane: int, turns: Sequence[tuple[int, int]]) -> None: ...
    def predicted_ns(self, family: int, lane: int, samples: int) -> int: ...
    def straggling(self, tenant: int) -> bool: ...
    def submit(
        self,
        tenant: int,
        token: int,
        *,
        samples: int = ...,
        deadline_ns: int | None = ...,
        priority: int = ...,
    ) -> int:
        """Accepts a request that its caller names `token` (unsigned, 64 bits; its completion may
        be read before this returns), `deadline_ns` from now; gives the id that cancel() takes.
        Raises QueueFullError, ClosedError."""

    def submit_bulk(
        self,
        tenants: Sequence[int],
        *,
        count: int | None = ...,
        first_token: int = ...,
        samples: int = ...,
        deadline_ns: int | None = ...,
        priority: int = ...,
        block: bool = ...,
    ) -> Ticket:
        """`count` requests (len(tenants) if None) of these tenants in turn, tokens ascending.
        block: waits for room, else those without room count as "queue-full"."""

    def cancel(self, request: int) -> bool:
        """True: it was waiting, and ends as "cancelled". False: it has started or ended."""

    def completions(self, most: int = ..., timeout_ns: int | None = ...) -> list[Completion] | None:
        """Waits for ended requests; [] when time is up, None once closed and all were read."""

    def timeline(self) -> list[Happening]: ...
    def stats(self) -> ExecutorStats: ...
    def close(self, *, drain: bool = ..., timeout_ns: int | None = ...) -> bool:
        """Refuses new requests, lets accepted ones end (drain) or drops those that wait, stops.
        False if launches had to be given up when time was up; their requests end "closed"."""

    def bench_roundtrip(self, tenant: int, count: int) -> list[int]:
        """Sorted ns from submit to the known end of `count` requests, one after the other."""

def available_cores() -> list[int]: ...
