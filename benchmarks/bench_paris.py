"""PARIS+ELSA's evaluation: latency-bounded throughput of its layouts and its route, beside others.

    spacetime bench paris [--quick] [--sla 1.5] [--out DIR]

Simulated from the published A100-80 profiles, see `studies/paris.py`. Every server has the same
number of devices. The paper's figures are unconfirmed: what is compared is the order of the
servers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.studies import paris
from spacetime.benchmarks.studies.paris import ELSA, FIFS, HOMOGENEOUS, MODELS, ParisSetting

DRAWS = 3  # random layouts
NAMES = (
    *(f"{units}g fifs" for units in HOMOGENEOUS),
    "best homogeneous", "random fifs", "random elsa", "paris fifs", "paris elsa",
)  # fmt: skip
# The order the paper reports, its only safe statement: better, worse.
ORDER = (
    ("paris elsa", "paris fifs"),
    ("paris elsa", "random elsa"),
    ("paris elsa", "best homogeneous"),
    ("random elsa", "best homogeneous"),
    ("paris fifs", "best homogeneous"),
)


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0,
    sla: float = 1.5, variance: float = 0.9, largest: int = 32,
) -> dict[str, Any]:  # fmt: skip
    """Simulates every server for five models; prints and records it.

    sla: the objective, in latencies of the largest request on a whole device. variance: of the
    logarithm of a request's size. largest: the most inputs of a request. Raises UnsupportedError
    outside a checkout.
    """
    profiles = paris.profiles()
    result = record.header(
        "paris", seed=seed, quick=quick,
        chosen={"sla": [sla], "variance": [variance], "largest": [largest]},
    )  # fmt: skip
    requests = 1_000 if quick else 20_000
    result["in_time"], result["requests"] = paris.IN_TIME, requests
    settings = [
        ParisSetting(model, gpus, profiles, sla, variance, largest, requests, seed)
        for model, (_, gpus) in MODELS.items()
    ]
    with ThreadPoolExecutor() as pool:
        result["rows"] = list(pool.map(_row, settings[-2:] if quick else settings))
    result["order"] = [_held(result["rows"], *pair) for pair in ORDER]
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="planning")
    return result


def _row(setting: ParisSetting) -> dict[str, Any]:
    gpus = setting.gpus
    layout = paris.paris(setting)
    drawn = [paris.at_random(gpus, setting.seed + number) for number in range(DRAWS)]
    rps = {
        f"{units}g fifs": paris.highest_rps(setting, paris.homogeneous(units, gpus), FIFS)
        for units in HOMOGENEOUS
    }
    rps["best homogeneous"] = max(rps.values())
    for name, policy in (("fifs", FIFS), ("elsa", ELSA)):
        rps[f"random {name}"] = fmean(paris.highest_rps(setting, at, policy) for at in drawn)
        rps[f"paris {name}"] = paris.highest_rps(setting, layout, policy)
    return {
        "model": setting.model,
        "papers_model": MODELS[setting.model][0],
        "gpus": gpus,
        "slo_ms": setting.slo_ms,
        "layout": dict(sorted(Counter(layout).items())),
        "rps": {name: rps[name] for name in NAMES},
    }


def _held(rows: list[dict[str, Any]], better: str, worse: str) -> dict[str, Any]:
    held = [row["model"] for row in rows if row["rps"][better] > row["rps"][worse]]
    broken = [row["model"] for row in rows if row["model"] not in held]
    return {"better": better, "worse": worse, "held": held, "broken": broken}


def relative(rps: Mapping[str, float]) -> dict[str, float | None]:
    """Returns rates as multiples of whole devices' rate; None where that is 0."""
    whole_rps = rps["7g fifs"]
    return {name: value / whole_rps if whole_rps else None for name, value in rps.items()}


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    yield record.table(
        f"highest rate with {result['in_time']:.0%} of the requests in time, whole devices = 1; "
        "0: no rate keeps it",
        ("model", "devices", "SLO ms", "7g fifs, requests/s", *NAMES),
        [
            (row["model"], row["gpus"], row["slo_ms"], row["rps"]["7g fifs"],
             *relative(row["rps"]).values())
            for row in result["rows"]
        ],
    )  # fmt: skip
    yield record.table(
        "instances paris makes of the devices, by slices",
        ("model", "in the paper", "instances"),
        [
            (row["model"], row["papers_model"],
             " ".join(f"{count}×{units}g" for units, count in row["layout"].items()))
            for row in result["rows"]
        ],
    )  # fmt: skip
    yield record.table(
        "the order of the servers: paper, ours",
        ("better", "worse", "paper", "ours", "not so for"),
        [
            (pair["better"], pair["worse"], "yes",
             f"{len(pair['held'])} of {len(result['rows'])} models",
             ", ".join(pair["broken"]) or "-")
            for pair in result["order"]
        ],
    )  # fmt: skip
