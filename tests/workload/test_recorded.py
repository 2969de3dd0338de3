"""Recorded arrivals: small files in the public formats, scaling, and damaged files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.units import SECOND
from spacetime.workload import recorded
from spacetime.workload.recorded import FORMS, FUNCTIONS_2019, Recorded, Span
from spacetime.workload.workload import TRACE_FORMS, Arrivals, Tenant, Workload, WorkloadError
from spacetime.workload.workload_file import read_workload

HEADER_2019 = ",".join([*FUNCTIONS_2019, "Trigger", *map(str, range(1, 1441))])
MINUTE = 60 * SECOND


def minutes(name: str, **counts: int) -> str:
    """A row of the 2019 format; `m3=7`: seven invocations in the third minute."""
    values = [str(counts.get(f"m{minute}", 0)) for minute in range(1, 1441)]
    return ",".join(["owner", "app", name, "http", *values])


SMALL = {
    "azure-functions-2019": "\n".join(
        [HEADER_2019, minutes("f", m1=2, m3=4), minutes("g", m2=1), minutes("idle")]
    )
    + "\n",
    "azure-functions-2021": (
        "app,func,end_timestamp,duration\n"
        "a,f,12.5,0.5\n"  # begins at 12 s
        "a,g,11.5,1.5\n"  # begins first, at 10 s, though it is listed later
        "a,f,14.25,0.25\n"
    ),
    "azure-llm": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0,110,27\n"
        "2023-11-16 18:17:05+00:00,110,27\n"
    ),
    "twitter": "3\n0\n2.0\n",
}


def tenants(*rates_rps: float) -> tuple[Tenant, ...]:
    return tuple(
        Tenant(name=f"t{n}", model="m", slo_ms=10, rate_rps=rate)
        for n, rate in enumerate(rates_rps)
    )


def written(folder: Path, form: str, text: str | None = None) -> Path:
    path = folder / "recording.csv"
    path.write_text(SMALL[form] if text is None else text, encoding="utf-8", newline="")
    return path


def how(form: str = "twitter", **changes: object) -> Arrivals:
    return Arrivals(process="trace", file="f", form=form, **changes)  # type: ignore[arg-type]


def test_the_words_for_formats_are_the_same_in_workloads() -> None:
    assert ("csv", *FORMS) == TRACE_FORMS


def test_invocations_are_counted_by_the_minute(tmp_path: Path) -> None:
    found = recorded.read(written(tmp_path, "azure-functions-2019"), "azure-functions-2019")
    assert set(found.streams) == {"owner/app/f", "owner/app/g"}
    drawn = recorded.draw(found, tenants(1, 9), how(), seed=0)
    # The busiest function goes to the tenant of the highest rate.
    assert Counter((a.tenant, a.time_ns // MINUTE) for a in drawn) == {
        (1, 0): 2,
        (1, 2): 4,
        (0, 1): 1,
    }
    assert len({a.time_ns for a in drawn}) == len(drawn)
    assert drawn == recorded.draw(found, tenants(1, 9), how(), seed=0)
    assert drawn != recorded.draw(found, tenants(1, 9), how(), seed=1)


def test_invocations_begin_their_duration_before_their_end(tmp_path: Path) -> None:
    found = recorded.read(written(tmp_path, "azure-functions-2021"), "azure-functions-2021")
    drawn = recorded.draw(found, tenants(1, 9), how(), seed=0)
    assert drawn == ((0, 0), (2 * SECOND, 1), (4 * SECOND, 1))


def test_requests_to_language_models_keep_their_digits(tmp_path: Path) -> None:
    found = recorded.read(written(tmp_path, "azure-llm"), "azure-llm")
    drawn = recorded.draw(found, tenants(5), how(), seed=0)
    assert [a.time_ns for a in drawn] == [0, 20_040_000, 1_020_040_000]


def test_a_single_stream_is_dealt_out_by_rate() -> None:
    found = Recorded({"requests": [Span(0, SECOND, 10_000)]}, SECOND, exact=False)
    drawn = recorded.draw(found, tenants(1, 3), how(), seed=0)
    assert len(drawn) == 10_000
    assert Counter(a.tenant for a in drawn)[1] == pytest.approx(7500, rel=0.03)
    assert sum(a.time_ns < SECOND // 2 for a in drawn) == pytest.approx(5000, rel=0.05)


def test_time_and_rate_are_scaled_apart(tmp_path: Path) -> None:
    found = recorded.read(written(tmp_path, "twitter"), "twitter")
    assert found.length_ns == 3 * SECOND

    def seconds(**changes: object) -> Counter[int]:
        drawn = recorded.draw(found, tenants(1), how(**changes), seed=0)
        return Counter(a.time_ns // SECOND for a in drawn)

    assert seconds() == {0: 3, 2: 2}
    assert seconds(rate_scale=100) == {0: 300, 2: 200}
    assert seconds(time_scale=0.1).total() == 5
    assert max(seconds(time_scale=0.1)) >= 20
    assert set(seconds(time_scale=3)) == {0}
    # 5 requests in 3 s become the tenant's one a second, whatever the scale of time.
    assert seconds(rates="tenants", rate_scale=1000).total() == pytest.approx(3000, abs=2)
    assert seconds(rates="tenants", rate_scale=1000, time_scale=3).total() == pytest.approx(
        1000, abs=2
    )


def test_single_requests_are_thinned_or_joined_by_others_near_them(tmp_path: Path) -> None:
    found = recorded.read(written(tmp_path, "azure-llm"), "azure-llm")
    drawn = recorded.draw(found, tenants(5), how(rate_scale=4), seed=0)
    own = [0, 20_040_000, 1_020_040_000]
    assert len(drawn) == 12
    assert set(own) <= {a.time_ns for a in drawn}
    many = Recorded({"r": [Span(n, 1, 1) for n in range(10_000)]}, 10_000, exact=True)
    thinned = recorded.draw(many, tenants(1), how(rate_scale=0.25), seed=0)
    assert len(thinned) == pytest.approx(2500, rel=0.1)
    assert len({a.time_ns for a in thinned}) == len(thinned)


@pytest.mark.parametrize("form", FORMS)
def test_a_workload_file_names_a_recording(tmp_path: Path, form: str) -> None:
    written(tmp_path, form)
    file = tmp_path / "work.yaml"
    file.write_text(
        "tenants: [{name: a, model: m, slo_ms: 9, rate_rps: 5}]\n"
        f"arrivals: {{process: trace, file: recording.csv, form: {form}, time_scale: 2}}\n"
    )
    found = read_workload(file)
    assert isinstance(found, Workload)
    assert found.trace
    written(tmp_path, form, "")
    with pytest.raises(WorkloadError, match=r"work\.yaml:2: arrivals\.file: .*recording\.csv"):
        read_workload(file)


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("twitter", "", "recording: holds no request"),
        ("twitter", "0\n0\n", "recording: holds no request"),
        ("twitter", "3\n\n4\n", ":2: requests: must be a number, got a blank line"),
        ("twitter", "3\n-1\n", ":2: requests"),
        ("twitter", "nan\n", ":1: requests"),
        ("twitter", "1e99\n", ":1: requests"),
        ("azure-llm", "ContextTokens\n", ":1: header: must be TIMESTAMP (no TIMESTAMP)"),
        ("azure-llm", SMALL["azure-llm"] + "2023-11-16 18:1\n", ":5: row: must have 3 fields"),
        ("azure-llm", SMALL["azure-llm"] + "2023-11-36 18:17:03.9,1,1\n", ":5: TIMESTAMP: must be"),
        ("azure-llm", SMALL["azure-llm"] + "2023-11-16 18:17:03.9,-1,1\n", ":5: ContextTokens"),
        ("azure-functions-2021", SMALL["azure-functions-2021"] + "a,f,1,2\n", ":5: duration"),
        ("azure-functions-2021", SMALL["azure-functions-2021"] + "a,f,x,2\n", ":5: end_timestamp"),
        (
            "azure-functions-2019",
            SMALL["azure-functions-2019"] + minutes("f", m1=1) + "\n",
            ":5: HashFunction: was given before, in row 2",
        ),
        ("azure-functions-2019", HEADER_2019 + "\n" + minutes("f", m7=-1) + "\n", ":2: 7: must be"),
    ],
)
def test_a_bad_recording_is_refused_with_row_and_field(
    tmp_path: Path, form: str, text: str, message: str
) -> None:
    with pytest.raises(WorkloadError) as refused:
        recorded.read(written(tmp_path, form, text), form)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from(sorted(FORMS)), data=st.data())
def test_a_damaged_recording_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    text = SMALL[form]
    at = data.draw(st.integers(0, len(text)) | st.integers(max(0, len(text) - 80), len(text)))
    damage = data.draw(st.text(max_size=4) | st.sampled_from(["nan", "-1", "1e999", '"', "\0"]))
    cut = data.draw(st.booleans())
    damaged = text[:at] + damage + ("" if cut else text[at + len(damage) :])
    path = written(tmp_path_factory.mktemp("damaged"), form, damaged)
    refused = ""
    try:
        found = recorded.read(path, form)
        drawn = recorded.draw(found, tenants(1), how(), seed=0)
    except WorkloadError as error:
        refused = str(error)
    else:
        assert drawn[0].time_ns >= 0
    assert "\n" not in refused


def test_what_would_be_too_much_or_nothing_is_refused() -> None:
    found = Recorded({"requests": [Span(0, SECOND, 10)]}, SECOND, exact=False)
    for changes, field in (
        ({"rate_scale": 1e8}, "rate_scale: gives"),
        ({"rate_scale": 1e-9}, "rate_scale: leaves no arrival"),
        ({"time_scale": 1e-9}, ""),
        ({"time_scale": 1e-10}, "time_scale"),
    ):
        if field:
            with pytest.raises(WorkloadError, match=field):
                recorded.draw(found, tenants(1), how(**changes), seed=0)
        else:
            assert len(recorded.draw(found, tenants(1), how(**changes), seed=0)) == 10
    few = Recorded({"f": [Span(0, 1, 1)], "g": [Span(0, 1, 1)]}, SECOND, exact=False)
    with pytest.raises(WorkloadError, match="tenants: are 3, the recording has 2 streams"):
        recorded.draw(few, tenants(1, 1, 1), how(), seed=0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"form": "pigeon"}, "form"),
        ({"time_scale": 0}, "time_scale"),
        ({"rate_scale": float("nan")}, "rate_scale"),
        ({"rates": "mine"}, "rates"),
        ({"form": "csv", "rate_scale": 2}, "form"),
    ],
)
def test_a_wrong_word_or_scale(changes: dict[str, object], field: str) -> None:
    with pytest.raises(WorkloadError, match=field):
        how(**{"form": "twitter", **changes})  # type: ignore[arg-type]
