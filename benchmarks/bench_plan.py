"""How many devices planners need for many small tenants, and how long they take.

    SPACETIME_DATA=... python -m spacetime.benchmarks.bench_plan [--quick] [--out DIR]

Tenants are drawn by `seed`: six of the published models, 2 to 200 requests a second (a tenth for
bert), objectives of 150 to 600 ms (6 s for bert), on the published A100-80 profiles.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from spacetime import devices
from spacetime.benchmarks import record
from spacetime.errors import UnsupportedError
from spacetime.plan import PlanOptions, planner, require
from spacetime.profile import Profiles
from spacetime.profile_import import parvagpu
from spacetime.workload import Tenant, Workload

MODELS = ("resnet50", "mobilenetv2", "densenet121", "vgg16", "bert", "inceptionv3")
PLANNERS = ("parvagpu", "mig-only", "spacetime")
SIZES = (20, 300, 1000)


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Every planner on every number of tenants. Raises UnsupportedError without the data."""
    folder = Path(os.environ.get("SPACETIME_DATA", "../shared/data")) / "parvagpu"
    if not folder.is_dir():
        raise UnsupportedError(f"{folder} is absent; set SPACETIME_DATA to the published data")
    profiles = parvagpu(folder)
    sizes = SIZES[:1] if quick else SIZES
    result = record.header("plan", seed=seed, quick=quick, chosen={"tenants": list(sizes)})
    result["rows"] = [
        _row(name, drawn(count, seed), profiles) for count in sizes for name in PLANNERS
    ]
    heads = ("tenants", "planner", "devices", "bound", "headroom", "seconds")
    lines = [[row[head] for head in heads] for row in result["rows"]]
    if as_json:
        print(json.dumps(result))
    else:
        record.console().print(record.table("devices for many small tenants", heads, lines))
    if out is not None:
        record.save(result, out)
    return result


def drawn(count: int, seed: int) -> Workload:
    """A workload of that many tenants, the same for the same seed."""
    draw = random.Random(f"{seed}/{count}")
    return Workload(tuple(_tenant(number, draw) for number in range(count)))


def _tenant(number: int, draw: random.Random) -> Tenant:
    model, slo_ms, rate = draw.choice(MODELS), draw.uniform(150, 600), draw.uniform(2, 200)
    if model == "bert":
        slo_ms, rate = 6000.0, rate / 10
    return Tenant(f"t{number}", model, slo_ms, rate)


def _row(name: str, load: Workload, profiles: Profiles) -> dict[str, Any]:
    device, options = devices.device(profiles.device), PlanOptions()
    begin = time.perf_counter()
    plan = planner(name).plan(load, profiles, device, options)
    seconds = time.perf_counter() - begin
    require(plan, load, profiles, device, options)
    return {
        "tenants": len(load.tenants),
        "planner": name,
        "devices": len(plan.gpus),
        "bound": plan.lower_bound_gpus,
        "headroom": plan.headroom,
        "seconds": seconds,
    }


if __name__ == "__main__":
    run(**vars(record.options("plan").parse_args()))
