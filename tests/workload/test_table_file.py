"""Tables as people have them: every reader of CSV is as lenient, and refuses the same."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spacetime.errors import SpacetimeError
from spacetime.profiles import profile_import
from spacetime.profiles.profile_file import read_profiles
from spacetime.workload import recorded, workload_file
from spacetime.workload.scenario_file import read_scenarios
from spacetime.workload.workload import Tenant

TENANTS = (Tenant("a", "m", 50, 10), Tenant("b", "m", 50, 10))
# Name of a file -> its columns, its rows, and what reads it.
FORMS: dict[str, tuple[str, list[str], Callable[[Path], Any]]] = {
    "f2019.csv": (
        "HashOwner,HashApp,HashFunction,Trigger,1,2,3",
        ["o,p,f,http,3,0,1", "o,p,g,queue,0,5,0"],
        partial(recorded.read, form="azure-functions-2019"),
    ),
    "f2021.csv": (
        "app,func,end_timestamp,duration",
        ["a,f,57.15,57.149", "b,g,0.0795,0.078", "a,f,240.016,0.0", "b,g,1e2,5.0e-05"],
        partial(recorded.read, form="azure-functions-2021"),
    ),
    "llm.csv": (
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        ["2023-11-16 18:17:03.97,374,44", "2023-11-16 18:17:03.5,1e1,0"],
        partial(recorded.read, form="azure-llm"),
    ),
    "trace.csv": (
        "time_ms,tenant",
        ["3,a", "1.5e0,b", "0,a"],
        partial(workload_file.read_trace, tenants=TENANTS),
    ),
    "profiles.csv": (
        "model,device,kind,units,batch,procs,latency_ms,throughput_rps,source,memory_mib",
        ["m,a100-80gb,mig,1,8,1,4e1,200,measured,", "m,a100-80gb,mig,2,8,1,20,400,measured,9"],
        read_profiles,
    ),
    "parvagpu.csv": (
        "Mig instance,Batch size,Workload Number,Throughput,Latency",
        ["1,8,1,200,0.04", "2,8,1,4e2,2e-2", "2,16,1,0,0"],
        profile_import.parvagpu,
    ),
    "gpulet.csv": (
        "model,batch,share_percent,latency_ms",
        ["m,8,20,40", "m,8,40,20"],
        profile_import.gpulet,
    ),
    "scenarios.csv": (
        "scenario,model,slo_ms,rate_rps",
        ["S1,m,5e1,10", "S1,n,50,0"],
        read_scenarios,
    ),
}


def shuffled(header: str, rows: list[str]) -> str:
    """With two columns more, all columns in another order."""
    table = [line.split(",") for line in (header, *rows)]
    for number, row in enumerate(table):
        row += [f"extra {number}", ""]
    order = random.Random(3).sample(range(len(table[0])), len(table[0]))
    return "\n".join(",".join(row[n] for n in order) for row in table) + "\n"


def quoted(header: str, rows: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(line.split(",") for line in (header, *rows))
    return out.getvalue()


def plain(header: str, rows: list[str]) -> str:
    return "\n".join([header, *rows]) + "\n"


WAYS: dict[str, Callable[[str, list[str]], str]] = {
    "more columns in another order": shuffled,
    "quoted": quoted,
    "a mark": lambda header, rows: "\ufeff" + plain(header, rows),
    "DOS lines": lambda header, rows: plain(header, rows).replace("\n", "\r\n"),
    "Mac lines": lambda header, rows: plain(header, rows).replace("\n", "\r"),
    "no last line end": lambda header, rows: plain(header, rows).rstrip("\n"),
    "blank last lines": lambda header, rows: plain(header, rows) + "\n  \n,,\n",
    "blank lines between": lambda header, rows: plain(header, rows).replace("\n", "\n\n"),
    "spaces": lambda header, rows: plain(header, rows).replace(",", " , "),
    "commas at the end": lambda header, rows: plain(header, rows).replace("\n", ",\n"),
    "capitals": lambda header, rows: plain(header.upper(), rows),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_table_however_it_is_written(name: str, way: str, tmp_path: Path) -> None:
    header, rows, read = FORMS[name]
    (tmp_path / name).write_text(plain(header, rows))
    wanted = read(tmp_path / name)
    (tmp_path / name).write_bytes(WAYS[way](header, rows).encode())
    assert read(tmp_path / name) == wanted


@pytest.mark.parametrize("name", [n for n in FORMS if n != "parvagpu.csv"])
def test_a_compressed_file_and_one_that_was_cut(name: str, tmp_path: Path) -> None:
    header, rows, read = FORMS[name]
    (tmp_path / name).write_text(plain(header, rows))
    packed = gzip.compress(plain(header, rows).encode())
    path = tmp_path / f"{name}.gz"
    path.write_bytes(packed)
    assert read(path) == read(tmp_path / name)
    for wrong in (packed[:-12], b"no gzip", packed[:10] + b"\x07" * 9):
        path.write_bytes(wrong)
        with pytest.raises(SpacetimeError, match=r"\.gz: cannot be read") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_no_such_table_is_refused_with_line_and_column(name: str, tmp_path: Path) -> None:
    header, rows, read = FORMS[name]
    path, first = tmp_path / name, header.split(",")[0]
    cut = rows[0].rsplit(",", 2)[0][:-1]
    wrong = {
        "": ":1: header: must be ",
        "\n\n": ":1: header: must be ",
        plain(header.replace(first, "who"), rows): f"(no {first}), got ",
        plain(f"{header},{first}", [row + ",1" for row in rows]): f":1: header: has {first} twice",
        plain(header, [*rows, rows[0] + ",beyond"]): f":{len(rows) + 2}: row: must have ",
        plain(header, [rows[0], '"never closed']): ":3: row: ",
    }
    if name not in {"f2019.csv", "trace.csv"}:
        wrong[plain(header, [*rows, "", cut])] = f":{len(rows) + 3}: row: must have "
    for text, message in wrong.items():
        path.write_text(text)
        with pytest.raises(SpacetimeError) as caught:
            read(path)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
    path.write_text(header + "\n")
    with pytest.raises(SpacetimeError, match=r"holds no|at least one point"):
        read(path)


def test_days_that_are_cut_short_and_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "HashFunction,HashApp,HashOwner,2,1,3\nf,p,o,7,,\ng,p,o,1,2\nh,p,o,0,0,4\n"
    )
    found = recorded.read(tmp_path / "d.csv", "azure-functions-2019")
    minutes = {
        name: [(span.start_ns // 60_000_000_000, span.requests) for span in spans]
        for name, spans in found.streams.items()
    }
    assert minutes == {"o/p/f": [(1, 7)], "o/p/g": [(0, 2), (1, 1)], "o/p/h": [(2, 4)]}
    assert found.length_ns == 3 * 60_000_000_000
    (tmp_path / "d.csv").write_text("HashOwner,HashApp,HashFunction,1\no,p\n")
    with pytest.raises(SpacetimeError, match=r"d\.csv:2: row: must have .* cut short"):
        recorded.read(tmp_path / "d.csv", "azure-functions-2019")


def test_counts_of_seconds_end_in_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf 3 \r\n1e1\r\n\r\n  \r\n")
    found = recorded.read(tmp_path / "t.txt", "twitter")
    assert [span.requests for span in found.streams["requests"]] == [3, 10]


def test_whole_numbers_as_a_spreadsheet_writes_them(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(
        "model,batch,share_percent,latency_ms\nm,8.0,2e1,40\nm,8.5,40,20\n"
    )
    with pytest.raises(SpacetimeError, match=r"g\.csv:3: batch: must be a whole number, got '8\.5"):
        profile_import.gpulet(tmp_path / "g.csv")


def test_a_function_that_began_a_rounding_before_the_recording(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("app,func,end_timestamp,duration\na,f,1.0,1.0004\na,f,2,0.5\n")
    found = recorded.read(tmp_path / "f.csv", "azure-functions-2021")
    assert found.streams["a/f"][0].start_ns == 0
    assert found.length_ns == 1_500_000_000
