"""Planners beside each other: verdicts, scenario files, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from published import parvagpu
from published import scenario as published_scenario

from spacetime.cli.root import cli
from spacetime.devices.facts import device
from spacetime.plan import PlanOptions
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import write_profiles
from spacetime.simulation.comparison import Verdict, compare
from spacetime.simulation.fixed_plan import SimOptions
from spacetime.units import SECOND
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload import Tenant, Workload, WorkloadError

PLANNERS = ("parvagpu", "whole-gpu")
PROFILES = Profiles(tuple(
    Point("m", "a100-80gb", "mig", units, batch, 1, ms, batch / ms * 1000)
    for units in (1, 2, 3, 4, 7)
    for batch in (1, 2, 4, 8)
    for ms in [(8 + batch) / units]
))  # fmt: skip
QUICK = SimOptions(duration_ns=2 * SECOND, replications=2)


def asked(rate_rps: float = 100.0, slo_ms: float = 100.0) -> Workload:
    return Workload(tenants=(Tenant(name="a", model="m", slo_ms=slo_ms, rate_rps=rate_rps),))


def verdicts(scenarios: dict[str, Workload], gpus: int | None = None) -> list[Verdict]:
    return list(compare(
        scenarios, PLANNERS, profiles=PROFILES, device=device("a100-80gb"),
        plan_options=PlanOptions(gpus=gpus), sim_options=QUICK,
    ))  # fmt: skip


def test_every_planner_gets_a_verdict_on_every_scenario() -> None:
    found = verdicts({"low": asked(), "high": asked(rate_rps=20_000)})
    assert [(v.scenario, v.planner) for v in found] == [
        (scenario, planner) for scenario in ("low", "high") for planner in PLANNERS
    ]
    for verdict in found:
        assert not verdict.violations
        assert verdict.gpus is not None
        assert verdict.lower_bound_gpus is not None
        assert verdict.lower_bound_gpus <= verdict.gpus
        assert verdict.planning_s > 0
    small, whole = found[:2]
    assert (small.gpus, whole.gpus) == (1, 1)
    assert small.stranded_units is not None
    assert small.stranded_units > whole.stranded_units == 0
    assert whole.keeps
    assert whole.idle_units is not None
    assert 0 < whole.idle_units < 7


def test_a_refusal_is_a_verdict_with_its_reason() -> None:
    for verdict in verdicts({"hard": asked(slo_ms=1)}):
        assert verdict.refused is not None
        assert "tenant a" in verdict.refused
        assert verdict.gpus is None
        assert not verdict.keeps


def test_published_scenarios_are_kept_by_their_own_planner() -> None:
    found = compare(
        {"S1": published_scenario("S1")}, ["parvagpu"], profiles=parvagpu(),
        device=device("a100-80gb"), sim_options=QUICK,
    )  # fmt: skip
    (verdict,) = found
    assert verdict.gpus == 2
    assert verdict.keeps


CSV = "scenario,model,slo_ms,rate_rps\ns1,m,100,50\ns1,m,80,20\ns2,m,100,900\n"
YAML = "tenants: [{name: a, model: m, slo_ms: 100, rate_rps: 50}]\n"


def test_scenarios_from_a_csv_a_folder_and_a_file(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(CSV)
    found = read_scenarios(table)
    assert {name: [t.name for t in each.tenants] for name, each in found.items()} == {
        "s1": ["m", "m-2"], "s2": ["m"]
    }  # fmt: skip
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(WorkloadError, match="holds no workload"):
        read_scenarios(folder)
    for name in ("b.yaml", "a.yml", "b.json"):
        (folder / name).write_text(YAML if name != "b.json" else json.dumps(
            {"tenants": [{"name": "a", "model": "m", "slo_ms": 1, "rate_rps": 2}]}
        ))  # fmt: skip
    assert list(read_scenarios(folder)) == ["a", "b.json", "b.yaml"]
    assert list(read_scenarios(folder / "a.yml")) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: header: must be scenario,model,slo_ms,rate_rps"),
        (CSV.split("\n", maxsplit=1)[0], ":1: scenarios: holds no row"),
        (CSV + "s3,m,100\n", ":5: row: must have 4 fields, has 3"),
        (CSV + "s3,m,100,many\n", ":5: rate_rps: must be a number, got 'many'"),
        (CSV + "s3,m,nan,1\n", ":5: slo_ms: must be a number above 0"),
        (CSV + "s3,m,1,-1\n", ":5: rate_rps: must be a number from 0"),
        (CSV + "s3,,1,1\n", ":5: model: must not be empty"),
        (CSV + 's3,"m,1,1\n', ":5: row: is not CSV"),
    ],
)
def test_a_bad_table_is_refused_with_row_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(WorkloadError) as refused:
        read_scenarios(tmp_path / "table.csv")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.integers(0, len(CSV)), st.text(max_size=3))
def test_a_damaged_table_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, damage: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "table.csv"
    path.write_text(CSV[:at] + damage + CSV[at:][len(damage) :], encoding="utf-8")
    try:
        found = read_scenarios(path)
    except WorkloadError as error:
        refused = str(error)
    else:
        refused = ""
        assert all(workload.tenants for workload in found.values())
    assert refused.startswith(str(path) if refused else "")
    assert "\n" not in refused


def test_the_command_writes_table_json_and_picture(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(CSV + "s3,m,1,50\n")
    write_profiles(tmp_path / "profiles.csv", PROFILES)
    arguments = ["compare", str(tmp_path / "table.csv"), "--profiles",
                 str(tmp_path / "profiles.csv"), "--duration", "1", "--replications", "1",
                 "--planner", "parvagpu", "--planner", "whole-gpu"]  # fmt: skip
    shown = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "parvagpu" in shown.output
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["format"] == "spacetime.compare/1"
    assert [row["refused"] is None for row in record["rows"]] == [True] * 4 + [False] * 2
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000
    printed = CliRunner().invoke(cli, [*arguments, "--json"])
    assert len(json.loads(printed.stdout)["rows"]) == 6
