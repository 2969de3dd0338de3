"""Workloads: rates and seeds as promised, and one exact line for every way a file can be wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.workload.workload import (
    Arrival,
    Arrivals,
    Tenant,
    Workload,
    WorkloadError,
    log_normal,
)
from spacetime.workload.workload_file import read_workload

RATES = st.floats(0.01, 1e6)
PROCESSES = st.one_of(
    st.sampled_from([Arrivals(), Arrivals(process="constant")]),
    st.floats(0.2, 3.0).map(lambda cv: Arrivals(process="gamma", cv=cv)),
)


def tenant(name: str = "a", rate_rps: float = 100) -> Tenant:
    return Tenant(name=name, model="m", slo_ms=50, rate_rps=rate_rps)


@given(PROCESSES, RATES, st.integers(0, 2**63 - 1))
def test_times_are_whole_ordered_and_repeatable(arrivals: Arrivals, rate: float, seed: int) -> None:
    first = list(islice(arrivals.times(rate_rps=rate, seed=seed), 50))
    assert first == list(islice(arrivals.times(rate_rps=rate, seed=seed), 50))
    assert all(isinstance(time, int) for time in first)
    assert all(earlier <= later for earlier, later in pairwise([0, *first]))


@settings(max_examples=25, deadline=None)
@given(PROCESSES, RATES, st.integers(0, 1000))
def test_mean_rate_is_the_one_asked_for(arrivals: Arrivals, rate: float, seed: int) -> None:
    number = 4000
    last = next(islice(arrivals.times(rate_rps=rate, seed=seed), number, None))
    cv = {"constant": 0.0, "poisson": 1.0, "gamma": arrivals.cv}[arrivals.process]
    assert last / 1e9 * rate / number == pytest.approx(1, abs=6 * cv / number**0.5 + 1e-3)


def test_gamma_is_as_bursty_as_asked() -> None:
    for cv in (0.3, 1.0, 2.5):
        gaps = [
            later - earlier
            for earlier, later in pairwise(
                islice(Arrivals(process="gamma", cv=cv).times(rate_rps=1000, seed=1), 20_000)
            )
        ]
        mean = sum(gaps) / len(gaps)
        deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
        assert deviation / mean == pytest.approx(cv, rel=0.1)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=5), st.integers(0, 99))
@settings(deadline=None)
def test_schedule_merges_tenants_in_order_of_time(rates: list[float], seed: int) -> None:
    tenants = tuple(tenant(str(number), rate) for number, rate in enumerate(rates))
    arrivals = list(Workload(tenants=tenants, seed=seed).schedule(duration_ns=10**8))
    assert arrivals == sorted(arrivals)
    assert all(0 <= arrival.time_ns < 10**8 for arrival in arrivals)
    alone = Workload(tenants=tenants[:1], seed=seed).schedule(duration_ns=10**8)
    assert list(alone) == [arrival for arrival in arrivals if arrival.tenant == 0]


def test_seed_changes_arrivals() -> None:
    one, two = (
        list(Workload(tenants=(tenant(),), seed=seed).schedule(duration_ns=10**9))
        for seed in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf"), 1e10, 10**400, True, "9"])
def test_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(WorkloadError, match=r"^rate_rps: must be a number from 0 to 1e\+09"):
        tenant(rate_rps=rate)


def test_trace_must_be_ordered_and_name_tenants() -> None:
    arrivals = Arrivals(process="trace", file="t.csv")
    good = (Arrival(1, 0), Arrival(1, 0), Arrival(5, 0))
    workload = Workload(tenants=(tenant(),), arrivals=arrivals, trace=good)
    assert list(workload.schedule(duration_ns=5)) == [Arrival(1, 0), Arrival(1, 0)]
    for bad in ((Arrival(5, 0), Arrival(1, 0)), (Arrival(1, 7),), (Arrival(-1, 0),)):
        with pytest.raises(WorkloadError, match="trace"):
            Workload(tenants=(tenant(),), arrivals=arrivals, trace=bad)


YAML = """\
tenants:
  - {name: eye, model: resnet, slo_ms: 50, rate_rps: 1e2, batch_sizes: [1, 2]}
  - name: ear
    model: zoo.audio:make
    slo_ms: 20.5
    rate_rps: 7
    weight: 2
    example_inputs: [{shape: [1, 3, 8], datatype: FP32}]
arrivals: {process: gamma, cv: 2}
seed: 3
"""


def write(folder: Path, text: str, name: str = "load.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_and_json_read_the_same(tmp_path: Path) -> None:
    workload = read_workload(write(tmp_path, YAML))
    assert [tenant.name for tenant in workload.tenants] == ["eye", "ear"]
    assert workload.tenants[0].rate_rps == 100
    assert workload.tenants[0].batch_sizes == (1, 2)
    assert workload.tenants[1].example_inputs[0].shape == (1, 3, 8)
    assert workload.arrivals == Arrivals(process="gamma", cv=2)
    as_json = {
        "tenants": [
            {"name": "eye", "model": "resnet", "slo_ms": 50, "rate_rps": 1e2,
             "batch_sizes": [1, 2]},
            {"name": "ear", "model": "zoo.audio:make", "slo_ms": 20.5, "rate_rps": 7, "weight": 2,
             "example_inputs": [{"shape": [1, 3, 8], "datatype": "FP32"}]},
        ],
        "arrivals": {"process": "gamma", "cv": 2},
        "seed": 3,
    }  # fmt: skip
    assert read_workload(write(tmp_path, json.dumps(as_json, indent="\t"), "load.json")) == workload


def test_requests_that_are_batches(tmp_path: Path) -> None:
    mix = YAML.replace("batch_sizes: [1, 2]", "batch_mix: {1: 3, 8: 1.5}")
    eye = read_workload(write(tmp_path, mix)).tenants[0]
    assert eye.batch_mix == ((1, 3), (8, 1.5))
    assert (eye.largest_request, eye.mean_request) == (8, 15 / 4.5)
    as_json = (
        '{"tenants": [{"name": "a", "model": "m", "slo_ms": 5, "rate_rps": 1, "batch_mix": %s}]}'
    )
    path = write(tmp_path, as_json % '{"1": 3, "8": 1.5}', "load.json")
    assert read_workload(path).tenants[0].batch_mix == eye.batch_mix
    drawn = mix.replace("{1: 3, 8: 1.5}", "{lognormal: {largest: 32, variance: 0.9}}")
    assert read_workload(write(tmp_path, drawn)).tenants[0].batch_mix == log_normal(32, 0.9)
    # One request in 15 / 4.5 inputs: the rate is of inputs.
    workload = Workload((replace(eye, rate_rps=100),), Arrivals(process="constant"))
    assert len(list(workload.schedule(duration_ns=10**9))) == 30
    for wrong, message in {
        "[8]": "batch_mix: must map inputs to weights",
        "{}": "batch_mix: must map inputs to weights",
        "{0: 1}": "batch_mix: must be a whole number from 1",
        "{two: 1}": "batch_mix: must be a whole number, got 'two'",
        "{2: -1}": "batch_mix: must be a number above 0",
        "{2: .nan}": "batch_mix: must be a number above 0",
        "{2: 1, '2': 1}": "is given twice",
        "{lognormal: {largest: 32}}": "batch_mix: lognormal must be alone",
        "{lognormal: {largest: 1e9, variance: 1}}": "lognormal.largest: must be a whole number",
        "{lognormal: {largest: 8, variance: 0}}": "lognormal.variance: must be a number above 0",
    }.items():
        with pytest.raises(WorkloadError, match=re.escape(message)):
            read_workload(write(tmp_path, mix.replace("{1: 3, 8: 1.5}", wrong)))


BROKEN = {
    "load.yaml:1: workload: must be fields and values, got None": "",
    "load.yaml:1: workload: must be fields and values, got [1]": "[1]",
    "load.yaml:1: tenants: is missing; add it": "seed: 1",
    "load.yaml:1: tenants: must name at least one tenant": "tenants: []",
    "load.yaml:1: tenants: must be a list, got 7": "tenants: 7",
    "load.yaml:2: tenants[0].rate_rps: must be a number from 0 to 1e+09, got -3":
        YAML.replace("1e2", "-3"),
    "load.yaml:2: tenants[0].rate_rps: must be a number from 0 to 1e+09, got inf":
        YAML.replace("1e2", "1e999"),
    "load.yaml:5: tenants[1].slo_ms: must be a number, got 'fast'":
        YAML.replace("20.5", "fast"),
    "load.yaml:3: tenants[1].slo_ms: is missing; add it": YAML.replace("    slo_ms: 20.5\n", ""),
    "load.yaml:7: tenants[1].wieght: is not a field here; there are name, model, slo_ms,":
        YAML.replace("weight", "wieght"),
    "load.yaml:7: tenants[1].rate_rps: is given twice, first in line 6":
        YAML.replace("weight", "rate_rps"),
    "load.yaml:3: tenants[1].name: eye is used twice; rename one": YAML.replace("ear", "eye"),
    "load.yaml:8: tenants[1].example_inputs[0].datatype: must be one of BOOL,":
        YAML.replace("FP32", "float"),
    "load.yaml:8: tenants[1].example_inputs[0].shape: must be a whole number from 1":
        YAML.replace("[1, 3, 8]", "[1, 0]"),
    "load.yaml:9: arrivals.process: must be one of poisson, constant, gamma, trace, got 'burst'":
        YAML.replace("gamma", "burst"),
    "load.yaml:9: arrivals.cv: must be a number from 0.01 to 100, got 0":
        YAML.replace("cv: 2", "cv: 0"),
    "load.yaml:9: arrivals.file: belongs to process trace, and trace needs it":
        YAML.replace("gamma", "trace"),
    "load.yaml:10: seed: must be a whole number, got 'x'": YAML.replace("seed: 3", "seed: x"),
    "load.yaml:10: seed: must be a whole number from 0 to 9223372036854775807, got -1":
        YAML.replace("seed: 3", "seed: -1"),
    "load.yaml:5: tenants[1].slo_ms: must be a number, got True": YAML.replace("20.5", "true"),
    "load.yaml:5: tenants[1].slo_ms: must be a number, got None": YAML.replace("20.5", "null"),
    "load.yaml:5: tenants[1].slo_ms: must be a number above 0 and at most 1e+12, got nan":
        YAML.replace("20.5", ".nan"),
    "load.yaml:5: tenants[1].slo_ms: must be a number of fewer digits, got 9999999999":
        YAML.replace("20.5", "9" * 400),
    "load.yaml:2: tenants[0]: must be fields and values, got 7":
        YAML.replace("{name: eye, model: resnet, slo_ms: 50, rate_rps: 1e2, batch_sizes: [1, 2]}",
                     "7"),
    "load.yaml:2: tenants[0].batch_sizes[1]: must be a whole number, got 2.5":
        YAML.replace("[1, 2]", "[1, 2.5]"),
    "load.yaml:8: tenants[1].example_inputs[0].range: must be a list of 2, got 5":
        YAML.replace("FP32", "FP32, range: 5"),
    "load.yaml:8: tenants[1].example_inputs[0].range: must be a list of 2, got [1]":
        YAML.replace("FP32", "FP32, range: [1]"),
    "load.yaml:8: tenants[1].example_inputs[0].range[1]: must be a number, got 'x'":
        YAML.replace("FP32", "FP32, range: [1, x]"),
    "load.yaml:8: tenants[1].example_inputs[0].range: must be a whole number from 0 to 255":
        YAML.replace("FP32", "UINT8, range: [0, 256]"),
    "load.yaml:1: workload: is not YAML or JSON: ": "tenants: [",
    "load.yaml:2: tenants[0].name: must be a text that is not empty, got datetime.date":
        YAML.replace("eye", "2020-01-02"),
}  # fmt: skip


@pytest.mark.parametrize("message", BROKEN)
def test_broken_file_is_refused_in_one_line(tmp_path: Path, message: str) -> None:
    path = write(tmp_path, BROKEN[message])
    with pytest.raises(WorkloadError) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read_workload(tmp_path / "none.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkloadError, match="must be UTF-8 text"):
        read_workload(path)
    with pytest.raises(WorkloadError, match="is not YAML or JSON"):
        read_workload(write(tmp_path, "[" * 5000))
    with pytest.raises(WorkloadError, match="tenants"):
        read_workload(write(tmp_path, "tenants: &a [*a]"))


TRACED = """\
tenants: [{name: a, model: m, slo_ms: 5, rate_rps: 1}, {name: b, model: m, slo_ms: 5, rate_rps: 1}]
arrivals: {process: trace, file: t.csv}
"""


def test_trace_file(tmp_path: Path) -> None:
    path = write(tmp_path, TRACED)
    write(tmp_path, "time_ms,tenant\n0,b\n0.5,a\n2,b\n", "t.csv")
    assert read_workload(path).trace == (Arrival(0, 1), Arrival(500_000, 0), Arrival(2_000_000, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv:1: header: must be time_ms,tenant (no time_ms), the file begins without"),
        ("time_ms,tenant\n", "t.csv: holds no arrival"),
        ("time_ms,tenant\n1,c\n", "t.csv:2: tenant: 'c' is not a tenant of the workload"),
        ("time_ms,tenant\nnan,a\n", "t.csv:2: time_ms: must be from 0 to 1e+12, got nan"),
        ("time_ms,tenant\nsoon,a\n", "t.csv:2: time_ms: must be a number, got 'soon'"),
        ("time_ms,tenant\n1\n", "t.csv:2: row: must have 2 fields, has 1; is it cut short?"),
    ],
)
def test_broken_trace_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, TRACED)
    write(tmp_path, text, "t.csv")
    with pytest.raises(WorkloadError) as caught:
        read_workload(path)
    assert str(caught.value) == f"{path}:2: arrivals.file: {tmp_path}/{message}"
