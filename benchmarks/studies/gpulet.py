"""The set-ups of gpulet's two evaluations, as far as they are published, and who admits what.

Latencies of four models are digitised from the paper's figure (the data folder); those of the other
five were never published. Each of these is the published model that resembles it most, scaled to
its objective, which the paper sets to twice the latency of batch 32: `source` is `predicted`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

from spacetime.benchmarks import record
from spacetime.devices.facts import device
from spacetime.errors import InfeasibleError
from spacetime.plan import Planner, PlanOptions
from spacetime.planners.gpulet import Gpulet
from spacetime.planners.greedy import Greedy
from spacetime.planners.ideal import Ideal
from spacetime.planners.sbp import Sbp
from spacetime.planners.self_tuning import SelfTuning
from spacetime.profiles.interference import PUBLISHED, MeasuredInterference, Use
from spacetime.profiles.profile import Point, Profiles
from spacetime.workload.workload import Tenant, Workload

DEVICE = device("rtx-2080ti")
FILE = "gpulet_fig3_latency.csv"
BATCHES = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32)
LARGEST = 32
NAMES = {"goo": "googlenet", "res": "resnet50", "ssd": "ssd_mobilenet_v1", "vgg": "vgg16"}
RESEMBLES = {"le": "goo", "nas": "goo", "mob": "goo", "den": "res", "be": "vgg"}
# L2 and DRAM utilisation of batch 32 on a whole 2080 Ti, percent, as published.
UTILISATION = {
    "be": (18, 35), "den": (26, 60), "goo": (25, 56), "le": (7, 25), "nas": (22, 58),
    "mob": (24, 62), "res": (28, 62), "ssd": (28, 61), "vgg": (30, 61),
}  # fmt: skip
INTERFERENCE = MeasuredInterference(
    PUBLISHED["rtx-2080ti"],
    {model: Use(l2 / 100, dram / 100) for model, (l2, dram) in UTILISATION.items()},
)


@dataclass(frozen=True, slots=True)
class GpuletStudy:
    """One of the two evaluations: objectives, the rates mixed, and what the paper admits.

    `with_batching`: latencies include collecting the batch (what the objectives imply), and a tenth
    more, as in the released code.
    """

    name: str
    slo_ms: Mapping[str, float]
    rates_rps: tuple[int, ...]
    with_batching: bool
    paper: Mapping[str, int]

    def scenarios(self) -> list[tuple[int, ...]]:
        """Returns every mix of rates but the one of nothing."""
        mixes = product(self.rates_rps, repeat=len(self.slo_ms))
        return [rates for rates in mixes if any(rates)]

    def workload(self, rates_rps: tuple[float, ...]) -> Workload:
        """Returns the tenants of one mix; one of rate 0 is left out."""
        return Workload(tuple(
            Tenant(name=model, model=model, slo_ms=slo, rate_rps=rate)
            for (model, slo), rate in zip(self.slo_ms.items(), rates_rps, strict=True)
            if rate
        ))  # fmt: skip


ATC = GpuletStudy(
    name="atc",
    slo_ms={"goo": 66, "le": 5, "res": 108, "ssd": 202, "vgg": 142, "nas": 62, "mob": 64,
            "den": 202, "be": 22},
    rates_rps=(0, 100, 200),
    with_batching=True,
    paper={"sbp": 5772, "sbp, halves": 17866, "gpulet+int": 18139, "ideal": 18659},
)  # fmt: skip
V1 = GpuletStudy(
    name="v1",
    slo_ms={"le": 5, "goo": 44, "res": 95, "ssd": 136, "vgg": 130},
    rates_rps=(0, 200, 400, 600),
    with_batching=False,
    paper={"gpulet+int": 861, "ideal": 879},
)
STUDIES = {study.name: study for study in (V1, ATC)}

# Highest rates over all models of a mix, req/s on four devices: Fig. 12 of the paper, digitised.
MIXES = {
    "scen1": ("mob", "be", "nas", "goo"), "scen2": ("den", "vgg"), "scen3": ("mob", "res", "vgg"),
    "scen4": ("ssd", "nas", "den"), "scen5": ("le", "ssd", "nas", "vgg"),
}  # fmt: skip
FIG12 = {
    "scen1": (1880, 2080, 2680, 2800), "scen2": (820, 960, 1100, 1240),
    "scen3": (1290, 1320, 1830, 1890), "scen4": (900, 1110, 1230, 1290),
    "scen5": (1240, 1280, 1520, 1640),
}  # fmt: skip
FIG12_NAMES = ("sbp", "greedy", "gpulet", "gpulet+int")

PLANNERS: Mapping[str, Planner] = {
    "sbp": Sbp(most_tenants=3),
    "sbp, halves": Sbp(units=50, most_tenants=3),
    "greedy": Greedy(),
    "self-tuning": SelfTuning(),
    "gpulet": Gpulet(),
    "gpulet+int": Gpulet(interference=INTERFERENCE),
    "ideal": Ideal(gpulet=Gpulet(interference=INTERFERENCE)),
}


def profiles(study: GpuletStudy) -> Profiles:
    """Returns every model of a study at ten batches, on straight lines between published ones."""
    latencies = _read(record.published(FILE))
    return Profiles(
        tuple(point for model in study.slo_ms for point in _points(model, study, latencies))
    )


Latencies = Mapping[tuple[str, int], list[tuple[int, float]]]  # of (model, percent): batch, ms


def _read(path: Path) -> Latencies:
    curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curve = curves.setdefault((row["model"], int(row["share_percent"])), [])
            curve.append((int(row["batch"]), float(row["latency_ms"])))
    return curves


def _points(model: str, study: GpuletStudy, latencies: Latencies) -> Iterator[Point]:
    like = RESEMBLES.get(model, model)
    scale = study.slo_ms[model] / study.slo_ms[like]
    whole_ms = dict(latencies[NAMES[like], 100])[LARGEST]
    # The objective is twice the latency of batch 32, so what the figure lacks is the rest.
    collect_ms = study.slo_ms[like] / 2 - whole_ms if study.with_batching else 0.0
    margin = 1.1 if study.with_batching else 1.0
    for (name, units), curve in latencies.items():
        if name != NAMES[like]:
            continue
        for batch in BATCHES:
            solo_ms = _between(curve, batch) + collect_ms * batch / LARGEST
            ms = solo_ms * scale * margin
            yield Point(model, DEVICE.name, "mps", units, batch, 1, ms, batch / ms * 1000,
                        "measured" if like == model else "predicted")  # fmt: skip


def _between(curve: list[tuple[int, float]], batch: int) -> float:
    for (below, ms_below), (above, ms_above) in pairwise(sorted(curve)):
        if below <= batch <= above:
            return ms_below + (ms_above - ms_below) * (batch - below) / (above - below)
    raise ValueError(f"batch {batch} is outside the published ones")


def admits(planner: Planner, load: Workload, profiles: Profiles, options: PlanOptions) -> bool:
    """Whether the planner finds a plan on the devices there are."""
    try:
        planner.plan(load, profiles, DEVICE, options)
    except InfeasibleError:
        return False
    return True


def admitted(
    study: GpuletStudy, rates_rps: tuple[int, ...], names: tuple[str, ...], profiles: Profiles,
    options: PlanOptions,
) -> dict[str, bool]:  # fmt: skip
    """Returns which planners admit one mix. `ideal` is asked only where `gpulet+int` does not."""
    load = study.workload(rates_rps)
    verdicts: dict[str, bool] = {}
    for name in names:
        verdicts[name] = (name == "ideal" and verdicts.get("gpulet+int", False)) or admits(
            PLANNERS[name], load, profiles, options
        )
    return verdicts


def highest_rps(planner: Planner, mix: str, profiles: Profiles, options: PlanOptions) -> int:
    """Returns the highest total rate of a mix of equal rates that is admitted, in steps of 10/s."""
    models = MIXES[mix]
    low, high = 0, 1000  # in tens

    def fits(tens: int) -> bool:
        rates = {model: tens * 10 / len(models) for model in models}
        load = ATC.workload(tuple(rates.get(model, 0.0) for model in ATC.slo_ms))
        return admits(planner, load, profiles, options)

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * 10
