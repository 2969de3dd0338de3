"""Interference from files: fitted with held-out errors, used by planner and checker, or refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_igniter import CURVES, points

from spacetime.cli.root import cli
from spacetime.errors import ProfileError
from spacetime.plan import plan_json
from spacetime.profiles.interference import PUBLISHED, Constant, Linear, MeasuredInterference, Use
from spacetime.profiles.interference_file import read_interference
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import write_profiles

USES = {"vgg19": {"l2": 0.3, "dram": 0.61}, "resnet50": {"l2": 0.28, "dram": 0.62},
        "alexnet": {"l2": 0.1, "dram": 0.2}}  # fmt: skip


def measured(count: int = 60) -> dict[str, Any]:
    """Pairs as the published coefficients of a 2080 Ti would have them."""
    draw = random.Random(5)
    truth = MeasuredInterference(
        PUBLISHED["rtx-2080ti"], {m: Use(**use) for m, use in USES.items()}
    )
    rows = []
    for _ in range(count):
        own, other = draw.sample(sorted(USES), 2)
        units = draw.choice([20, 40, 50, 60, 80])
        slowdown = truth.factor(own, units, other, 100 - units)
        rows.append({"model": own, "units": units, "others": [[other, 100 - units]],
                     "slowdown": slowdown})  # fmt: skip
    return {"format": "spacetime.interference/1", "uses": USES, "pairs": rows}


def write(folder: Path, data: object) -> Path:
    path = folder / "pairs.json"
    path.write_text(json.dumps(data))
    return path


def test_the_model_of_least_held_out_error_is_taken(tmp_path: Path) -> None:
    model, fits = read_interference(write(tmp_path, measured()))
    assert fits[0].name == "linear"
    assert isinstance(fits[0].slowdown, Linear)
    assert [fit.mean for fit in fits] == sorted(fit.mean for fit in fits)
    assert {fit.name for fit in fits} == {"constant", "linear", "igniter"}
    truth = MeasuredInterference(
        PUBLISHED["rtx-2080ti"], {m: Use(**use) for m, use in USES.items()}
    )
    expected = truth.factor("vgg19", 50, "resnet50", 50)
    assert model.factor("vgg19", 50, "resnet50", 50) == pytest.approx(expected, rel=0.05)


def test_a_certificate_gives_its_mean(tmp_path: Path) -> None:
    rows = [{"p50_inflation": 1.1}, {"p50_inflation": 1.3}]
    found = read_interference(write(tmp_path, {"format": "spacetime.verify/1", "rows": rows}))
    assert found == (Constant(pytest.approx(1.2)), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "format: must be spacetime.interference/1 or"),
        ({"uses": [1]}, "pairs: uses must be fields"),
        ({"uses": {"vgg19": {"l2": 0.3}}}, "uses.vgg19: must have l2 and dram"),
        ({"uses": {"vgg19": {"l2": 30, "dram": 0.1}}}, "uses.vgg19.l2: must be a number from 0"),
        ({"pairs": []}, "pairs: must be at least 4"),
        ({"pairs": [{"model": "a"}]}, "pairs[0]: must have model, units, others and slowdown"),
        ({"pairs": [{"model": "x", "units": 50, "others": [["vgg19", 50]], "slowdown": 1}]},
         "uses: x has none"),
        ({"pairs": [{"model": "vgg19", "units": 50, "others": [["vgg19", 50]],
                     "slowdown": "slow"}]}, "pairs[0].slowdown: must be a number"),
        ({"format": "spacetime.verify/1"}, "rows: must hold at least one pair"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, measured() | change)
    with pytest.raises(ProfileError) as caught:
        read_interference(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    path.write_text("{")
    with pytest.raises(ProfileError, match="interference: is not JSON"):
        read_interference(path)


def test_the_command_plans_with_it_checks_with_it_and_shows_the_errors(tmp_path: Path) -> None:
    known = Profiles(tuple(p for name, curve in CURVES.items() for p in points(name, curve)))
    write_profiles(tmp_path / "p.csv", known)
    tenants = [{"name": n, "model": n, "slo_ms": slo, "rate_rps": rate}
               for n, rate, slo in (("vgg19", 200, 60), ("resnet50", 400, 40))]  # fmt: skip
    (tmp_path / "w.json").write_text(json.dumps({"tenants": tenants}))
    certificate = {"format": "spacetime.verify/1", "rows": [{"p50_inflation": 1.2}]}

    def units(data: object) -> tuple[list[int], str]:
        args = ["plan", f"{tmp_path}/w.json", "--profiles", f"{tmp_path}/p.csv", "--planner",
                "igniter", "--json", "--max-utilisation", "1", "--steady",
                "--interference", str(write(tmp_path, data))]  # fmt: skip
        done = CliRunner().invoke(cli, args, catch_exceptions=False)
        plan = plan_json.loads(done.stdout)
        return sorted(part.units for _, part, _ in plan), done.stderr

    assert units(certificate) == ([40, 45], "")
    found, said = units(measured())
    assert sum(found) >= 70
    assert "linear" in said
    assert "held out" in said
