"""The set-up of PARIS+ELSA's evaluation on public profiles: layouts, servers, highest rates.

The paper's numbers are unconfirmed and are not repeated here; the order of the servers is what can
be compared. Of its five models two have no public profile: the one that resembles each stands in.
A request is a batch of log-normal size and runs by itself; requests come at random. The objective
is a multiple of what the largest takes on a whole device; a rate counts as served where 95 % of
the requests are within it; one that has not started by then is dropped, under every server.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spacetime.benchmarks import record
from spacetime.devices import mig
from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError, UnsupportedError
from spacetime.plan import PlanOptions
from spacetime.planners.paris import Paris
from spacetime.policy import Policy
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.simulation.rate_search import highest_scale
from spacetime.simulation.simulator import FamilySpec, LaneSpec, SimArrivals, SimTenant, native_run
from spacetime.units import ns_from_ms
from spacetime.workload.workload import Tenant, Workload, log_normal

DEVICE = device("a100-80gb")
IN_TIME = 0.95
TOLERANCE = 0.02
# Model of the profiles -> (the paper's model, its devices).
MODELS: Mapping[str, tuple[str, int]] = {
    "densenet121": ("ShuffleNet (a stand-in)", 4),
    "mobilenetv2": ("MobileNet", 4),
    "resnet50": ("ResNet-50", 8),
    "bert": ("BERT (large for base)", 6),
    "inceptionv3": ("Conformer (a stand-in)", 8),
}
HOMOGENEOUS = (1, 2, 3, 7)
# One queue from which an idle instance takes the oldest, whatever its size; and ELSA.
FIFS = Policy(route="pinned", order="fifo", batch="one", lend=False)
ELSA = Policy.named("elsa")


@dataclass(frozen=True, slots=True)
class ParisSetting:
    """One model's evaluation; `sla` times the latency of the largest request is the objective."""

    model: str
    gpus: int
    profiles: Profiles
    sla: float = 1.5
    variance: float = 0.9
    largest: int = 32
    requests: int = 20_000
    seed: int = 0

    @property
    def slo_ms(self) -> float:
        """The objective in ms."""
        whole = self.profiles.at(self.model, "mig", 7, self.largest, 1)
        if whole is None:
            raise UnsupportedError(f"largest: {self.model} has no batch of {self.largest}")
        return self.sla * whole.latency_ms

    @property
    def mix(self) -> tuple[tuple[int, float], ...]:
        """The sizes of requests, with the probability of each."""
        return log_normal(self.largest, self.variance)

    def latency_ns(self, units: int) -> dict[int, int]:
        """Returns the time an instance takes for each batch up to the largest."""
        points = self.profiles.batches(self.model, "mig", units)
        enough = next((p.batch for p in points if p.batch >= self.largest), points[-1].batch)
        return {p.batch: ns_from_ms(p.latency_ms) for p in points if p.batch <= enough}


def profiles() -> Profiles:
    """Returns the public profiles. Raises UnsupportedError outside a checkout."""
    return read_profiles(record.a100("profiles.csv"))


def homogeneous(units: int, gpus: int) -> tuple[int, ...]:
    """Returns as many instances of one size as the devices hold."""
    most = max(n for n in range(1, 8) if mig.arrange((units,) * n) is not None)
    return (units,) * most * gpus


def at_random(gpus: int, seed: int) -> tuple[int, ...]:
    """Returns the instances of full layouts drawn for the devices."""
    draw = random.Random(f"layouts/{seed}")
    layouts = [draw.choice(mig.maximal_layouts()) for _ in range(gpus)]
    return tuple(sorted(placement.units for layout in layouts for placement in layout))


def paris(setting: ParisSetting) -> tuple[int, ...]:
    """Returns the planner's instances, at the highest rate it finds room for on the devices."""
    options = PlanOptions(gpus=setting.gpus, max_utilisation=1, max_procs=1)
    layouts: dict[float, tuple[int, ...]] = {}

    def fits(scale: float) -> float:
        tenant = Tenant("t", setting.model, setting.slo_ms, 100 * scale, batch_mix=setting.mix)
        try:
            plan = Paris().plan(Workload((tenant,)), setting.profiles, DEVICE, options)
        except InfeasibleError:
            return 0.0
        layouts[scale] = tuple(sorted(part.units for _, part, _ in plan))
        return 1.0

    return layouts[highest_scale(fits, 1.0).scale]


def highest_rps(setting: ParisSetting, layout: Sequence[int], policy: Policy) -> float:
    """Returns the latency-bounded throughput in requests/s; 0 where every rate misses."""
    takes = {units: setting.latency_ns(units) for units in set(layout)}
    weights = setting.mix
    # What the instances would do if none ever idled: where the search begins.
    busy_s = [
        sum(weight * _of(takes[units], size) for size, weight in weights) / 1e9 for units in layout
    ]
    most_rps = sum(1 / seconds for seconds in busy_s)

    def attained(scale: float) -> float:
        result = native_run(
            policy=policy,
            lanes=[LaneSpec(units=units, pool=0 if policy is FIFS else None) for units in layout],
            families=[FamilySpec(latency_ns={n: takes[units] for n, units in enumerate(layout)})],
            tenants=[SimTenant(
                arrivals=SimArrivals(rate_rps=most_rps * scale), sizes=weights,
                slo_ns=ns_from_ms(setting.slo_ms), lane=0, queue_limit=2**31 - 1,
            )],
            requests=setting.requests, seed=setting.seed,
        )  # fmt: skip
        (tenant,) = result.tenants
        return tenant.met / tenant.offered

    # Below a thousandth of that, requests hardly meet: what misses then misses at any rate.
    if attained(0.001) < IN_TIME:
        return 0.0
    return highest_scale(attained, IN_TIME, tolerance=TOLERANCE).scale * most_rps


def _of(latency_ns: Mapping[int, int], size: int) -> int:
    return latency_ns[min(batch for batch in latency_ns if batch >= size)]
