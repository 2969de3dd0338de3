"""The compiled core. Written by hand; a test compares it with the built module."""

from collections.abc import Callable, Sequence
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
        age_ns: int | None = ...,
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
    def age_ns(self) -> int | None: ...
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
    def __init__(self, policy: Policy, *, record: int = ...) -> None:
        """record: bytes of recording kept, 0 = none."""

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
    def set_routes(
        self,
        tenant: int,
        now: int,
        *,
        lane: int | None = ...,
        lane_weights: Sequence[float] = ...,
        move: bool = ...,
    ) -> list[Action]: ...
    def set_batch(self, family: int, lane: int, samples: int | None, now: int) -> list[Action]: ...
    def close_lane(self, lane: int) -> None: ...
    def load(self, lane: int) -> int: ...
    def arrive(
        self,
        request: int,
        tenant: int,
        now: int,
        *,
        samples: int = ...,
        priority: int | None = ...,
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
    def recording(self) -> bytes: ...
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
    def launches(self) -> int: ...
    @property
    def samples(self) -> int: ...
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
        stream: int | None,
        samples: int,
        sizes: Sequence[tuple[int, float]],
        slo_ns: int | None,
        drops: bool,
        slowdowns: Sequence[tuple[int, int, float]],
    ) -> None: ...

class SimSpec:
    def __init__(
        self,
        *,
        policy: Policy,
        lanes: Sequence[tuple[int, bool, int | None]],
        families: Sequence[Sequence[int]],
        latencies: Sequence[tuple[int, int, int, int]],
        tenants: Sequence[SimTenant],
        duty: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        interference: Sequence[tuple[int, int, int, int, float]],
        noise: str,
        noise_cv: float,
        noise_factors: list[float],
        horizon_ns: int | None,
        requests: int | None,
        seed: int,
        timeline: bool,
        record: int = ...,
    ) -> None: ...

class SimResult:
    @property
    def tenants(self) -> list[TenantStats]: ...
    @property
    def lanes(self) -> list[LaneStats]: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def recording(self) -> bytes: ...
    def timeline(self) -> list[Action]: ...

class Simulation:
    """A simulation that stops where it is told and can be changed there, at instant `now`, after
    all that happened at it. Times are integer nanoseconds of virtual time."""

    def __init__(self, spec: SimSpec) -> None: ...
    def run_until(self, time: int | None = ...) -> bool:
        """Up to and with `time` (None: to the end, which needs a horizon, a number of requests or
        traces). False once every request has ended and none is to come. Holds no GIL."""

    @property
    def now(self) -> int: ...
    @property
    def tenants(self) -> list[TenantStats]: ...
    @property
    def lanes(self) -> list[LaneStats]: ...
    def counts(self) -> tuple[tuple[int, int, int, int], ...]:
        """By tenant, so far: offered, completed, met, dropped."""

    @property
    def waiting(self) -> int: ...
    def load(self, lane: int) -> int: ...
    def result(self) -> SimResult:
        """A copy of all it has counted so far."""

    def add_lane(self, *, units: int = ..., borrows: bool = ..., pool: int | None = ...) -> int: ...
    def close_lane(self, lane: int) -> None: ...
    def set_latency(self, family: int, lane: int, bucket: int, latency_ns: int) -> None: ...
    def set_batch(self, family: int, lane: int, samples: int | None) -> None: ...
    def set_duty(self, lane: int, turns: Sequence[tuple[int, int]]) -> None: ...
    def set_routes(
        self,
        tenant: int,
        *,
        lane: int | None = ...,
        lane_weights: Sequence[float] = ...,
        move: bool = ...,
    ) -> None: ...
    def set_rate(self, tenant: int, rate: float) -> None:
        """Requests a second from now on, of any process but a trace; the draws stay the same."""

def simulate(spec: SimSpec) -> SimResult: ...

class Difference:
    """The first event answered otherwise: at_ns since the first one, its number, both answers."""

    @property
    def at_ns(self) -> int: ...
    @property
    def event(self) -> int: ...
    @property
    def recorded(self) -> str: ...
    @property
    def replayed(self) -> str: ...

class Replay:
    @property
    def events(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def starts(self) -> int: ...
    @property
    def drops(self) -> int: ...
    @property
    def span_ns(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    @property
    def difference(self) -> Difference | None: ...

def replay(recording: bytes) -> Replay:
    """Raises ValueError `recording: byte N: ...`."""

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
    def granted(self) -> list[int]: ...  # units read back; empty before its server entered
    @property
    def size(self) -> int: ...  # of its partition: cores, or SMs as granted
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

    def __init__(
        self,
        policy: Policy,
        *,
        capacity: int = ...,
        timeline: int = ...,
        record: int = ...,
        device: CudaDevice | None = ...,
    ) -> None:
        """capacity: requests in flight; timeline: happenings kept until read, 0 = none; record:
        bytes of recording kept, 0 = none; device: lanes are partitions of its SMs, else of this
        machine's cores."""

    def add_lane(
        self,
        units: Sequence[int],
        *,
        native: bool = ...,
        borrows: bool = ...,
        priority: int = ...,
        pool: int | None = ...,
    ) -> Lane:
        """At any time, also under load. Lanes of one `pool` (any number) share what waits."""

    def close_lane(self, lane: int) -> None:
        """For good: take() of the lane gives None once what runs there is done. Raises ValueError
        while requests wait there or routes lead there."""

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
    def set_native(
        self, family: int, function: NativeFunction | None, *, lane: int | None = ...
    ) -> None:
        """What runs the family's launches: on that lane, or wherever no lane's own is set. None
        leaves launches that start from now on to whoever takes them from the lane."""

    def set_latency(self, family: int, lane: int, bucket: int, latency_ns: int) -> None: ...
    def set_duty(self, lane: int, turns: Sequence[tuple[int, int]]) -> None: ...
    def set_routes(
        self,
        tenant: int,
        *,
        lane: int | None = ...,
        lane_weights: Sequence[float] = ...,
        move: bool = ...,
    ) -> None:
        """From its return on, submitted requests follow these routes. What waits keeps its lane
        and is served there; `move` takes it along. Raises IndexError for a tenant that is none."""

    def set_batch(self, family: int, lane: int, samples: int | None) -> None:
        """The most samples a launch of the family on the lane takes: a bucket, None for as many as
        it has latencies for, 0 to let the lane run only what already waits on it."""

    def load(self, lane: int) -> int:
        """Requests that wait on the lane, and 1 while it runs a launch; 0 = drained."""

    def predicted_ns(self, family: int, lane: int, samples: int) -> int: ...
    def straggling(self, tenant: int) -> bool: ...
    def submit(
        self,
        tenant: int,
        token: int,
        *,
        samples: int = ...,
        deadline_ns: int | None = ...,
        priority: int | None = ...,
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
        priority: int | None = ...,
        block: bool = ...,
    ) -> Ticket:
        """`count` requests (len(tenants) if None) of these tenants in turn, tokens ascending.
        block: waits for room, else those without room count as "queue-full"."""

    def cancel(self, request: int) -> bool:
        """True: it was waiting, and ends as "cancelled". False: it has started or ended."""

    def completions(self, most: int = ..., timeout_ns: int | None = ...) -> list[Completion] | None:
        """Waits for ended requests; [] when time is up, None once closed and all were read."""

    def timeline(self) -> list[Happening]: ...
    def recording(self) -> bytes:
        """What the scheduler was told and decided since the executor opened (csrc/tape/tape.h)."""

    def stats(self) -> ExecutorStats: ...
    def close(self, *, drain: bool = ..., timeout_ns: int | None = ...) -> bool:
        """Refuses new requests, lets accepted ones end (drain) or drops those that wait, stops.
        False if launches had to be given up when time was up; their requests end "closed"."""

    def bench_roundtrip(self, tenant: int, count: int) -> list[int]:
        """Sorted ns from submit to the known end of `count` requests, one after the other."""

def available_cores() -> list[int]: ...
def driver_initialized(library: str = ...) -> bool: ...  # by anybody in this process

class CudaDevice:
    """An opened CUDA device and its one split into units: groups of SMs, then the remainder.

    Calls raise spacetime.errors.DriverError; open() also UnsupportedError, where there is no
    driver or it has no device, and ValueError for an ordinal that does not exist. unit_sms: SMs of
    a unit, 0 for the smallest that hold large clusters; domains: units of locality domains.
    """

    @staticmethod
    def open(
        ordinal: int = ..., *, library: str = ..., unit_sms: int = ..., domains: bool = ...
    ) -> CudaDevice: ...
    @property
    def name(self) -> str: ...
    @property
    def driver_version(self) -> int: ...  # 13000 is CUDA 13.0
    @property
    def capability(self) -> tuple[int, int]: ...
    @property
    def sms(self) -> int: ...
    @property
    def l2_bytes(self) -> int: ...
    @property
    def priorities(self) -> int: ...  # the largest that streams may have; 0 is the least
    @property
    def unit_sms(self) -> list[int]: ...  # of each unit
    @property
    def unit_domains(self) -> list[int]: ...  # the locality domain of each unit; -1: of none
    @property
    def has_remainder(self) -> bool: ...
    @property
    def why_unbounded(self) -> str: ...  # empty: partitions bound SMs
    @property
    def features(self) -> dict[str, str]: ...  # mechanism: why it is off, or empty
    @property
    def contexts(self) -> int: ...  # green contexts held now
    @property
    def lost(self) -> tuple[str, int] | None: ...  # the call and code of a sticky error
    def memory(self) -> tuple[int, int]: ...  # free and total bytes
    def synchronize(self) -> None: ...
    def ladder(self) -> list[list[int]]: ...  # units of partitions that stay once they are made
    def why_not(self, units: Sequence[int]) -> str:
        """Why the driver makes no partition of these units; empty if it does."""

    @property
    def refused(self) -> list[tuple[list[int], str]]: ...  # units asked for in vain, and why
    def partition(self, units: Sequence[int], *, priority: int = ...) -> SmPartition: ...

class SmPartition:
    """Streams on a set of SMs. Launches go to `stream`; `capture_stream` only records graphs;
    `warm_stream` runs what comes before. Handles are CUstream numbers."""

    @property
    def units(self) -> list[int]: ...
    @property
    def sms(self) -> int: ...  # as granted
    @property
    def bounded(self) -> bool: ...
    @property
    def context(self) -> int: ...  # a CUcontext; 0 where the driver does not say, or not bounded
    @property
    def stream(self) -> int: ...
    @property
    def capture_stream(self) -> int: ...
    @property
    def warm_stream(self) -> int: ...
    def __cuda_stream__(self) -> tuple[int, int]: ...

def partition_of(lane: Lane) -> SmPartition: ...  # ValueError: a partition of cores

class Memory:
    """A range of memory; views keep it."""

    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def on_device(self) -> bool: ...
    def view(
        self,
        offset: int,
        shape: Sequence[int],
        strides: Sequence[int],
        code: int,
        bits: int,
        host: bool = ...,
    ) -> object:
        """A DLPack capsule; strides in elements, `code` is DLPack's of the type. host: device
        memory that is the host's."""

class DeviceMemory(Memory):
    def __init__(self, device: CudaDevice, nbytes: int) -> None: ...

class PinnedMemory(Memory):
    def __init__(self, device: CudaDevice, nbytes: int) -> None: ...

class Arena(Memory):
    """Rows at fixed addresses, of which only those mapped have memory. Where the driver refuses
    addresses for `rows`, half of them, and so on down to `least` (None: no fewer)."""

    def __init__(
        self, device: CudaDevice, *, row_bytes: int, rows: int, least: int | None = ...
    ) -> None: ...
    @property
    def row_bytes(self) -> int: ...  # rounded up
    @property
    def rows(self) -> int: ...
    @property
    def mapped_bytes(self) -> int: ...
    def map(self, row: int) -> None: ...
    def unmap(self, row: int) -> None: ...

class GraphExec:
    """An executable graph; it runs on the SMs of the stream it was captured on."""

    @staticmethod
    def borrow(device: CudaDevice, handle: int, keeper: object) -> GraphExec: ...
    @property
    def handle(self) -> int: ...
    @property
    def graph(self) -> int: ...  # the CUgraph it was made of; 0: made elsewhere

def kernel_contexts(device: CudaDevice, graph: int) -> list[int]: ...  # CUcontexts, by kernel node

class Payload:
    """A request for a Runner: its token is its address. Inputs and outputs are addresses of
    `samples` contiguous rows each; `ready` is a CUevent to wait for, or 0."""

    def __init__(
        self,
        member: int,
        samples: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        on_device: bool = ...,
        ready: int = ...,
    ) -> None: ...
    @property
    def token(self) -> int: ...

class Runner:
    """Runs batches of one family on one lane as graphs; see csrc/cuda/runner.h."""

    def __init__(
        self,
        device: CudaDevice,
        partition: SmPartition,
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        buckets: Sequence[int],
        spin_ns: int = ...,
    ) -> None:
        """inputs, outputs: bytes of a row of each tensor."""

    @property
    def input_block(self) -> Memory: ...
    @property
    def output_block(self) -> Memory: ...
    def input_offsets(self, bucket: int) -> list[int]: ...  # members' rows first, then the inputs
    def output_offsets(self, bucket: int) -> list[int]: ...
    def add(self, bucket: int, graph: GraphExec) -> None: ...
    def clear(self) -> None: ...
    def time(self, payloads: Sequence[Payload]) -> tuple[int, int]: ...  # wall and device ns
    @property
    def function(self) -> NativeFunction: ...

def driver_failure(code: int) -> tuple[str, int]: ...  # a failed launch's code: call and CUresult

class FakeDriver:
    """A simulated driver, in virtual time, whose calls can be made to fail."""

    def __init__(
        self,
        model: str = ...,
        *,
        driver_version: int = ...,
        memory_bytes: int = ...,
        interference: bool = ...,
        whole_groups: int = ...,
        smallest_context: int = ...,
        remainder_merges: bool = ...,
        address_bytes: int = ...,
        libraries_fork: bool = ...,
    ) -> None:
        """Zeros: as the device has. Contexts of fewer SMs than `smallest_context` are refused;
        `address_bytes` can be reserved at once; convolutions of libraries that fork run their
        kernels on a stream of the whole device."""

    @property
    def libraries_fork(self) -> bool: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def busy_sm_ns(self) -> int: ...
    @property
    def live(self) -> dict[str, int]: ...  # objects that exist, by kind
    @property
    def calls(self) -> int: ...
    @property
    def failed(self) -> list[str]: ...  # the calls that faults struck
    def fail(self, nth: int, code: int, *, call: str | None = ..., sticky: bool = ...) -> None:
        """Makes the nth call, of all or of one kind, fail."""

    def poison(self, code: int) -> None: ...  # the next work that ends leaves a sticky error

class FakeCudaDevice(CudaDevice):
    def __init__(self, driver: FakeDriver, *, unit_sms: int = ..., domains: bool = ...) -> None: ...
    @property
    def driver(self) -> FakeDriver: ...
    def capture(
        self,
        partition: SmPartition,
        *,
        flops: float,
        nbytes: float,
        effect: Callable[[], None] | None = ...,
        apart: bool = ...,
    ) -> GraphExec:
        """A kernel of that cost, then what it does to memory. An effect that raises loses the
        device, as an assertion in a kernel does. apart: the kernel is on all SMs, beside the
        partition's stream."""

class Mailbox:
    """One launch at a time between two processes, over the first page of the memory `fd`."""

    BYTES: int
    def __init__(self, fd: int) -> None: ...
    def call(self) -> bool: ...  # asks and waits; False where the other side is lost
    def lose(self) -> None: ...
    @property
    def lost(self) -> bool: ...
    def next(self, timeout_ns: int | None = ...) -> bool: ...  # False: time is up
    def answer(self) -> None: ...
    @property
    def beats(self) -> int: ...

class Heart:
    """Beats for its process and ends it, without any lock of Python's, when `parent` has gone."""

    def __init__(self, mailbox: Mailbox, interval_ns: int, parent: int = ...) -> None: ...
