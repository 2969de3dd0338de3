"""Workloads: who asks, how often, and when. Pure: no file, no clock, seeded numbers only.

Every value is checked where it is made, so a `Workload` that exists is one that can be run.
`workload_file` reads one from YAML or JSON.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any, NamedTuple

from spacetime.errors import SpacetimeError

PROCESSES = ("poisson", "constant", "gamma", "trace")
DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16"),
)
LARGEST_FLOAT = {
    "FP16": 65504.0, "BF16": (2 - 2**-7) * 2.0**127,
    "FP32": (2 - 2**-23) * 2.0**127, "FP64": sys.float_info.max,
}  # fmt: skip
TRACE_FORMS = ("csv", "azure-functions-2019", "azure-functions-2021", "azure-llm", "twitter")
MAX_SCALE = 1e9
MAX_RATE_RPS = 1e9  # one request a nanosecond: the clock's own resolution
MAX_MS = 1e12  # thirty years: far inside 64-bit nanoseconds
MAX_COUNT = 2**31 - 1
LARGEST_REQUEST = 2**16
CV_RANGE = (0.01, 100.0)  # outside, the gamma draws lose their mean to rounding


class WorkloadError(SpacetimeError, ValueError):
    """A workload's `field` is wrong and the message says what it must be."""

    def __init__(self, field: str, problem: str, *, where: str = "") -> None:
        super().__init__(f"{where}{field}: {problem}")
        self.field = field
        self.problem = problem


def shown(value: object) -> str:
    """A value as a message quotes it: its beginning, in one line."""
    try:
        return f"{value!r:.40}"
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return "a number of too many digits"


def _text(field: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise WorkloadError(field, f"must be a text that is not empty, got {shown(value)}")


def _number(field: str, value: Any, high: float, low: float | None = None) -> None:
    """Refuse what is not a number in `[low, high]`, or in `(0, high]` where no `low` is given."""
    # Every comparison with NaN is false, so it is refused with the rest.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value <= high and (value > 0 if low is None else value >= low):
        return
    bounds = f"above 0 and at most {high:g}" if low is None else f"from {low:g} to {high:g}"
    raise WorkloadError(field, f"must be a number {bounds}, got {shown(value)}")


def _whole(field: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise WorkloadError(
            field, f"must be a whole number from {low} to {high}, got {shown(value)}"
        )


def _one_of(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise WorkloadError(field, f"must be one of {', '.join(choices)}, got {shown(value)}")


class Arrival(NamedTuple):
    """One request of an open loop: nanoseconds after the start, and the tenant's number."""

    time_ns: int
    tenant: int


def log_normal(largest: int, variance: float) -> tuple[tuple[int, float], ...]:
    """A `batch_mix` of 1 to `largest` inputs, log-normal around its square root; weights sum to 1.

    Raises WorkloadError for a size or variance (of the logarithm) out of range.
    """
    _whole("largest", largest, 1, LARGEST_REQUEST)
    _number("variance", variance, 100)
    middle = math.log(largest) / 2
    bell = [
        math.exp(-((math.log(size) - middle) ** 2) / (2 * variance)) / size
        for size in range(1, largest + 1)
    ]
    total = math.fsum(bell)  # a narrow bell underflows to 0 far from its middle
    return tuple((size, each / total) for size, each in enumerate(bell, start=1) if each > 0)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input tensor: its shape, first dimension the batch, and its Open Inference datatype.

    `name` is what clients of a server call it; without one it is input_0, input_1, ...
    `range` bounds the values of examples, both ends included; `file` holds rows of them (.npy,
    .npz, .safetensors, or the protocol's JSON). Without either see `example_rows`.
    """

    shape: tuple[int, ...]
    datatype: str
    name: str | None = None
    range: tuple[int | float, int | float] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            _text("name", self.name)
        if not self.shape:
            raise WorkloadError("shape", "must have at least the batch dimension, got []")
        for size in self.shape:
            _whole("shape", size, 1, MAX_COUNT)
        _one_of("datatype", self.datatype, DATATYPES)
        if self.file is not None:
            _text("file", self.file)
        if self.range is not None:
            self._check_range(self.range)

    def _check_range(self, given: Sequence[Any]) -> None:
        if self.file is not None:
            raise WorkloadError("range", "is of no use with a file; leave one of them out")
        if self.datatype == "BOOL":
            raise WorkloadError("range", "is for numbers; BOOL is true and false")
        if len(given) != 2:
            raise WorkloadError("range", f"must be [low, high], got {shown(list(given))}")
        lowest, highest = limits(self.datatype)
        for end in given:
            if self.datatype in LARGEST_FLOAT:
                _number("range", end, highest, lowest)
            else:
                _whole("range", end, int(lowest), int(highest))
        if given[0] > given[1]:
            raise WorkloadError("range", f"must be [low, high], got {shown(list(given))}")


def limits(datatype: str) -> tuple[float, float]:
    """The least and the largest finite number of a datatype."""
    if datatype in LARGEST_FLOAT:
        return -LARGEST_FLOAT[datatype], LARGEST_FLOAT[datatype]
    bits = int(datatype.partition("INT")[2])
    if datatype.startswith("U"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as a workload names it.

    `model` is a key of the profiles, or `package.module:factory` for a live run; `weights` a
    safetensors file; `batch_sizes` the batches a planner may choose from (empty: any).

    `batch_mix`: requests that are batches already, as in PARIS (DAC'22): each holds one of these
    (inputs, weight), drawn in proportion to its weight, and is launched whole. `rate_rps` counts
    inputs all the same, as profiles do. Empty: one input a request. A tenant of rate 0 is deployed
    and idle: no capacity is planned for it, and its requests are served when there is room.

    `batchable`: whether requests may share a launch: as Session.add takes it.
    """

    name: str
    model: str
    slo_ms: float
    rate_rps: float
    priority: int = 0
    weight: float = 1.0
    batch_sizes: tuple[int, ...] = ()
    example_inputs: tuple[InputSpec, ...] = ()
    weights: str | None = None
    batch_mix: tuple[tuple[int, float], ...] = ()
    batchable: bool | None = None

    def __post_init__(self) -> None:
        _text("name", self.name)
        _text("model", self.model)
        _number("slo_ms", self.slo_ms, MAX_MS)
        _number("rate_rps", self.rate_rps, MAX_RATE_RPS, 0)
        _whole("priority", self.priority, -MAX_COUNT, MAX_COUNT)
        _number("weight", self.weight, 1e6)
        for size in self.batch_sizes:
            _whole("batch_sizes", size, 1, MAX_COUNT)
        names = [spec.name for spec in self.example_inputs if spec.name]
        if len(names) != len(set(names)):
            raise WorkloadError("example_inputs", "give each input a name of its own")
        if self.weights is not None:
            _text("weights", self.weights)
        if self.batchable is not None and not isinstance(self.batchable, bool):
            raise WorkloadError("batchable", f"must be true or false, got {shown(self.batchable)}")
        for size, weight in self.batch_mix:
            _whole("batch_mix", size, 1, LARGEST_REQUEST)
            _number("batch_mix", weight, 1e9)
        if len({size for size, _ in self.batch_mix}) < len(self.batch_mix):
            raise WorkloadError("batch_mix", "names a size twice")

    @property
    def largest_request(self) -> int:
        """The most inputs one request holds."""
        return max((size for size, _ in self.batch_mix), default=1)

    @property
    def mean_request(self) -> float:
        """Inputs a request, on average."""
        total = sum(weight for _, weight in self.batch_mix)
        return sum(size * weight for size, weight in self.batch_mix) / total if total else 1.0

    def takes(self, batch: int) -> bool:
        """Whether a launch of this batch is allowed and holds any of its requests whole."""
        return batch >= self.largest_request and self.allows(batch)

    def allows(self, batch: int) -> bool:
        """Whether a launch may be of this batch."""
        return not self.batch_sizes or batch in self.batch_sizes


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How requests come: `cv` is the coefficient of variation of gamma gaps, `file` the trace.

    A trace of another `form` than `csv` is somebody's recording (see `recorded`): its time runs
    `time_scale` times as fast, and each count is multiplied by `rate_scale` (both scale the rate;
    the second keeps the pattern in time). With `rates` `tenants`, counts are first scaled to the
    tenants' own rates.
    """

    process: str = "poisson"
    cv: float = 1.0
    file: str | None = None
    form: str = "csv"
    time_scale: float = 1.0
    rate_scale: float = 1.0
    rates: str = "recorded"

    def __post_init__(self) -> None:
        _one_of("process", self.process, PROCESSES)
        _number("cv", self.cv, CV_RANGE[1], CV_RANGE[0])
        if self.file is not None:
            _text("file", self.file)
        if (self.process == "trace") != (self.file is not None):
            raise WorkloadError("file", "belongs to process trace, and trace needs it")
        _one_of("form", self.form, TRACE_FORMS)
        _one_of("rates", self.rates, ("recorded", "tenants"))
        _number("time_scale", self.time_scale, MAX_SCALE)
        _number("rate_scale", self.rate_scale, MAX_SCALE)
        scaled = (self.time_scale, self.rate_scale, self.rates) != (1.0, 1.0, "recorded")
        if self.form == "csv" and scaled:
            raise WorkloadError("form", "csv is replayed as it is; name a recording's form")

    def times(self, *, rate_rps: float, seed: int | str) -> Iterator[int]:
        """One tenant's arrivals at a mean rate, endless: nanoseconds, never falling.

        A constant process starts at 0, the random ones after their first gap. Raises WorkloadError
        for a trace, whose times are recorded and not drawn.
        """
        _number("rate_rps", rate_rps, MAX_RATE_RPS)
        mean_ns = 1e9 / rate_rps
        if self.process == "constant":
            return (round(number * mean_ns) for number in count())
        return _running_sum(self._gap(mean_ns, random.Random(f"spacetime/{seed}")))

    def _gap(self, mean_ns: float, draw: random.Random) -> Callable[[], float]:
        if self.process == "poisson":
            return lambda: draw.expovariate(1.0) * mean_ns
        if self.process == "gamma":
            shape = self.cv**-2
            return lambda: draw.gammavariate(shape, mean_ns / shape)
        raise WorkloadError("process", f"{self.process} has recorded times; it draws none")


def _running_sum(gap: Callable[[], float]) -> Iterator[int]:
    time = gap()
    while True:
        yield round(time)
        time += gap()


@dataclass(frozen=True, slots=True)
class Workload:
    """Tenants with rates and an arrival process; the same seed gives the same arrivals.

    >>> one = Tenant(name="a", model="resnet", slo_ms=50, rate_rps=100)
    >>> workload = Workload(tenants=(one,), arrivals=Arrivals(process="constant"))
    >>> [arrival.time_ns for arrival in workload.schedule(duration_ns=30_000_000)]
    [0, 10000000, 20000000]
    """

    tenants: tuple[Tenant, ...]
    arrivals: Arrivals = Arrivals()
    seed: int = 0
    trace: tuple[Arrival, ...] = ()

    def __post_init__(self) -> None:
        if not self.tenants:
            raise WorkloadError("tenants", "must name at least one tenant")
        _whole("seed", self.seed, 0, 2**63 - 1)
        names = [tenant.name for tenant in self.tenants]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise WorkloadError(f"tenants[{number}].name", f"{name} is used twice; rename one")
        self._check_trace()

    def _check_trace(self) -> None:
        for earlier, later in pairwise(self.trace):
            if later.time_ns < earlier.time_ns:
                raise WorkloadError("trace", "must be in order of time")
        for arrival in self.trace:
            if arrival.time_ns < 0 or not 0 <= arrival.tenant < len(self.tenants):
                raise WorkloadError("trace", f"{arrival} has no such time or tenant")

    def with_rates(self, rates: Sequence[float]) -> Workload:
        """The same tenants at other rates, inputs a second; 0 becomes a trickle of its own rate,
        for who comes and goes keeps some capacity."""
        tenants = tuple(
            replace(tenant, rate_rps=max(rate, tenant.rate_rps / 1000))
            for tenant, rate in zip(self.tenants, rates, strict=True)
        )
        return replace(self, tenants=tenants)

    def schedule(self, *, duration_ns: int) -> Iterator[Arrival]:
        """Every request before `duration_ns`, in order of time; ties in order of tenants."""
        if self.arrivals.process == "trace":
            return (arrival for arrival in self.trace if arrival.time_ns < duration_ns)
        return heapq.merge(
            *(self._schedule_of(number, duration_ns) for number in range(len(self.tenants)))
        )

    def _schedule_of(self, number: int, duration_ns: int) -> Iterator[Arrival]:
        # A tenant's times depend on its own number only: adding a tenant moves nobody else's.
        rate_rps = self.tenants[number].rate_rps / self.tenants[number].mean_request
        if not rate_rps:
            return
        for time_ns in self.arrivals.times(rate_rps=rate_rps, seed=f"{self.seed}/{number}"):
            if time_ns >= duration_ns:
                return
            yield Arrival(time_ns, number)
