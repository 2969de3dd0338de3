"""gpulet's scenario studies and highest rates, by planning alone: the paper's numbers beside ours.

    spacetime bench gpulet [--quick] [--turns own|all] [--out DIR]

It needs the digitised latencies (SPACETIME_DATA). Five of nine models are stand-ins, see
`studies/gpulet.py`. The paper's counts are what its schedulers admit on four devices; its highest
rates were measured, ours are the highest a plan exists for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from spacetime.benchmarks import record
from spacetime.benchmarks.studies import gpulet
from spacetime.benchmarks.studies.gpulet import FIG12, FIG12_NAMES, PLANNERS, STUDIES, GpuletStudy
from spacetime.plan import PlanOptions
from spacetime.planners.gpulet import Gpulet
from spacetime.planners.packing.knee import KNEES

GPUS = 4
QUICK_SCENARIOS = 40
CHUNK = 64


def run(
    *, quick: bool = False, out: Path | None = None, as_json: bool = False, seed: int = 0,
    turns: str = "all",
) -> dict[str, Any]:  # fmt: skip
    """Plans both studies, the highest rates and the rules for the knee; prints and records them.

    quick: a few scenarios drawn by `seed` instead of all. turns: what a tenant waits for in a
    cycle, `all` as in the released code or `own` as in Nexus. Raises UnsupportedError without data.
    """
    record.known("turns", [turns], ("all", "own"))
    options = PlanOptions(gpus=GPUS, max_utilisation=1, turns=turns)  # type: ignore[arg-type]
    result = record.header("gpulet", seed=seed, quick=quick, chosen={"turns": [turns]})
    result["gpus"] = GPUS
    result["turns"] = turns
    result["studies"] = [
        _study(study, options, quick=quick, seed=seed) for study in STUDIES.values()
    ]
    result["rates"] = _rates(options, quick=quick)
    result["knees"] = _knees(options, quick=quick, seed=seed)
    record.publish(result, _tables(result), out=out, as_json=as_json, plots="planning")
    return result


def _drawn(study: GpuletStudy, count: int | None, seed: int) -> list[tuple[int, ...]]:
    every = study.scenarios()
    if count is None:
        return every
    return random.Random(f"{study.name}/{seed}").sample(every, min(count, len(every)))


def _study(study: GpuletStudy, options: PlanOptions, *, quick: bool, seed: int) -> dict[str, Any]:
    profiles = gpulet.profiles(study)
    scenarios = _drawn(study, QUICK_SCENARIOS if quick else None, seed)
    names = tuple(PLANNERS)
    begin = time.perf_counter()
    ask = partial(_admitted, study.name, names, profiles, options)
    with ProcessPoolExecutor() as pool:
        verdicts = list(pool.map(ask, scenarios, chunksize=1 if quick else CHUNK))
    return {
        "study": study.name,
        "scenarios": len(scenarios),
        "of": len(study.scenarios()),
        "admitted": {name: sum(verdict[name] for verdict in verdicts) for name in names},
        "paper": dict(study.paper),
        "seconds": time.perf_counter() - begin,
    }


def _admitted(
    study: str, names: tuple[str, ...], profiles: Any, options: PlanOptions, rates: tuple[int, ...]
) -> dict[str, bool]:
    return gpulet.admitted(STUDIES[study], rates, names, profiles, options)


def _rates(options: PlanOptions, *, quick: bool) -> list[dict[str, Any]]:
    profiles = gpulet.profiles(gpulet.ATC)
    mixes = list(FIG12)[:2] if quick else list(FIG12)
    return [
        {
            "mix": mix,
            "rps": {
                name: gpulet.highest_rps(PLANNERS[name], mix, profiles, options)
                for name in FIG12_NAMES
            },
            "paper": dict(zip(FIG12_NAMES, FIG12[mix], strict=True)),
        }
        for mix in mixes
    ]


def _knees(options: PlanOptions, *, quick: bool, seed: int) -> list[dict[str, Any]]:
    """Returns how many of the same drawn scenarios gpulet admits, by its rule for the knee.

    The paper leaves this choice open.
    """
    study = gpulet.ATC
    profiles = gpulet.profiles(study)
    scenarios = _drawn(study, 20 if quick else 500, seed)
    fewer = PlanOptions(gpus=2, max_utilisation=1, turns=options.turns)
    return [
        {
            "knee": knee,
            "scenarios": len(scenarios),
            "admitted": sum(
                gpulet.admits(Gpulet(knee=knee), study.workload(rates), profiles, fewer)
                for rates in scenarios
            ),
        }
        for knee in KNEES
    ]


def _tables(result: dict[str, Any]) -> Iterator[Any]:
    for study in result["studies"]:
        part = study["scenarios"] / study["of"]
        yield record.table(
            f"{study['study']}: admitted on {result['gpus']} devices, {study['scenarios']} of "
            f"{study['of']} scenarios, {study['seconds']:.0f} s",
            ("planner", "ours, scenarios", "ours, part", "paper, scenarios", "paper, part"),
            [
                (name, count, _percent(count, study["scenarios"]),
                 study["paper"].get(name), _percent(study["paper"].get(name), study["of"]))
                for name, count in study["admitted"].items()
            ],
        )  # fmt: skip
        if part < 1:
            yield "drawn at random: compare the parts, not the counts"
    heads = [word for name in FIG12_NAMES for word in (f"{name}, ours", f"{name}, paper")]
    yield record.table(
        "highest total req/s of a mix: a plan exists (ours), measured (paper, Fig. 12)",
        ("mix", *heads),
        [
            (row["mix"], *(row[of][name] for name in FIG12_NAMES for of in ("rps", "paper")))
            for row in result["rates"]
        ],
    )
    for name in FIG12_NAMES[1:]:
        ours, paper = (_gain(result["rates"], of, name) for of in ("rps", "paper"))
        yield f"{name} over sbp: {ours:+.1%} ours, {paper:+.1%} paper, mean of these mixes"
    yield record.table(
        f"gpulet's knee by rule: admitted on 2 devices of {result['knees'][0]['scenarios']} drawn",
        ("rule", "admitted, scenarios"),
        [(row["knee"], row["admitted"]) for row in result["knees"]],
    )


def _percent(count: int | None, total: int) -> str | None:
    return None if count is None else f"{count / total:.1%}"


def _gain(rows: Sequence[dict[str, Any]], of: str, name: str) -> float:
    """Returns a planner's mean gain in rate over `sbp`, as a part of it."""
    gains = [row[of][name] / row[of]["sbp"] - 1 for row in rows]
    return float(sum(gains) / len(gains))
