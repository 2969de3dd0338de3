"""How many devices planners need for many small tenants, and how long they take.

    spacetime bench plan [--tenants 10000] [--out DIR]

Tenants are drawn by `seed`: six of the published models, 2 to 200 requests a second (a tenth for
bert), objectives of 150 to 600 ms (6 s for bert), on the published A100-80 profiles.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.devices import facts
from spacetime.plan import PlanOptions, require
from spacetime.planners.registry import planner
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles
from spacetime.workload.workload import Tenant, Workload

MODELS = ("resnet50", "mobilenetv2", "densenet121", "vgg16", "bert", "inceptionv3")
PLANNERS = ("parvagpu", "mig-only", "spacetime")


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0,
    tenants: Sequence[int] = (20, 300, 1000),
) -> dict[str, Any]:  # fmt: skip
    """Plans every number of tenants by every planner; prints and records it.

    Raises UnsupportedError outside a checkout.
    """
    profiles = read_profiles(record.a100("profiles.csv"))
    tenants = tenants[:1] if quick else tenants
    result = record.header("plan", seed=seed, quick=quick, chosen={"tenants": tenants})
    result["rows"] = [
        _row(name, drawn(count, seed), profiles) for count in tenants for name in PLANNERS
    ]
    heads = ("tenants", "planner", "devices", "least devices", "headroom", "planning s")
    keys = ("tenants", "planner", "devices", "bound", "headroom", "seconds")
    lines = [[row[key] for key in keys] for row in result["rows"]]
    shown = record.table("devices for many small tenants", heads, lines)
    record.publish(result, [shown], out=out, as_json=as_json, plots=None)
    return result


def drawn(count: int, seed: int) -> Workload:
    """Returns a workload of that many tenants, the same for the same seed."""
    draw = random.Random(f"{seed}/{count}")
    return Workload(tuple(_tenant(number, draw) for number in range(count)))


def _tenant(number: int, draw: random.Random) -> Tenant:
    model, slo_ms, rate_rps = draw.choice(MODELS), draw.uniform(150, 600), draw.uniform(2, 200)
    if model == "bert":
        slo_ms, rate_rps = 6000.0, rate_rps / 10
    return Tenant(f"t{number}", model, slo_ms, rate_rps)


def _row(name: str, load: Workload, profiles: Profiles) -> dict[str, Any]:
    device, options = facts.device(profiles.device), PlanOptions()
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
