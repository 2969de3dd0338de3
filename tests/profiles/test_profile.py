"""Profiles: queries, round trips, the published data, and one exact line for every bad row."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import published
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetime.errors import ProfileError
from spacetime.profiles import profile_file, profile_import
from spacetime.profiles.profile import Point, Profiles
from spacetime.profiles.profile_file import read_profiles, write_profiles

TEMPORARY = tempfile.TemporaryDirectory()
HEADER = ",".join(profile_file.HEADER)
GOOD = "m,a100-80gb,mig,1,8,1,40,200,measured"


def point(units: int = 1, batch: int = 8, procs: int = 1, ms: float = 40, **more: object) -> Point:
    entries = {"model": "m", "device": "a100-80gb", "kind": "mig", **more}
    rate = batch * procs / ms * 1000
    return Point(units=units, batch=batch, procs=procs, latency_ms=ms, throughput_rps=rate,
                 **entries)  # type: ignore[arg-type]  # fmt: skip


POINTS = st.builds(
    point,
    units=st.sampled_from([1, 2, 3, 4, 7]),
    batch=st.integers(1, 1000),
    procs=st.integers(1, 5),
    ms=st.floats(1e-3, 1e6),
    model=st.sampled_from(["a", "b, c", 'd"e']),
    source=st.sampled_from(["measured", "predicted"]),
    memory_mib=st.one_of(st.none(), st.floats(1, 1e6)),
)


def test_queries_by_hand() -> None:
    one, two, three = point(1, 8, 1, 40), point(2, 8, 1, 20), point(2, 16, 2, 80)
    profiles = Profiles((three, one, two))
    assert profiles.of("m", units=2) == (two, three)
    assert profiles.of("other") == ()
    assert profiles.batches("m", "mig", 2, 2) == (three,)
    assert profiles.exact("m", "mig", 1, 8) == one
    assert profiles.at("m", "mig", 1, 5) == one
    assert profiles.at("m", "mig", 1, 9) is None
    assert profiles.best("m", under_ms=39.9) == two
    assert profiles.best("m", under_ms=100, max_procs=1) == two
    assert profiles.best("m", under_ms=80) == two  # a tie with three: the smaller batch
    assert profiles.best("m", under_ms=19) is None
    assert (profiles.models, profiles.kinds, profiles.device) == (("m",), ("mig",), "a100-80gb")


def test_points_of_several_tenants_are_seen_by_their_own_queries_alone() -> None:
    one, two, four = point(1, 8), point(1, 8, ms=50, tenants=2), point(1, 16, ms=90, tenants=4)
    profiles = Profiles((four, two, one))
    assert profiles.of("m") == profiles.batches("m", "mig", 1) == (one,)
    assert profiles.exact("m", "mig", 1, 8) == profiles.best("m", under_ms=99) == one
    assert profiles.fused("m") == (two, four)
    assert profiles.at_fused("m", "mig", 1, 8, tenants=2) == two
    assert profiles.at_fused("m", "mig", 1, 8, tenants=3) == four
    assert (
        profiles.at_fused("m", "mig", 1, 2, tenants=9) == two
    )  # two inputs are of two tenants at most
    assert (
        profiles.at_fused("m", "mig", 1, 1, tenants=9)
        == profiles.at_fused("m", "mig", 1, 8, tenants=1)
        == one
    )
    assert profiles.at_fused("m", "mig", 1, 16, tenants=5) is None
    assert profiles.at_fused("m", "mig", 1, 8, tenants=2, procs=2) is None


def test_optional_columns_are_written_only_where_needed(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    for points, more in (
        ([point()], ""),
        ([point(tenants=2)], ",tenants"),
        ([point(), point(2, memory_mib=1.5)], ",memory_mib"),
        ([point(), point(2, tenants=8, memory_mib=7)], ",tenants,memory_mib"),
    ):
        write_profiles(path, points)
        assert path.read_text().splitlines()[0] == HEADER + more
        assert list(read_profiles(path)) == points


@pytest.mark.parametrize(
    ("more", "values", "message"),
    [
        (",tenants", ",0", "2: tenants: must be a whole number from 1 to 8"),
        (",tenants", ",9", "2: tenants: must be a whole number from 1 to 8"),
        (",tenants", ",", "2: tenants: must be a whole number"),
        (",memory_mib", ",-1", "2: memory_mib: must be a number above 0"),
        (",memory_mib", ",nan", "2: memory_mib: must be a number above 0"),
        (",tenants,memory_mib", ",1", "2: row: must have 11 fields, has 10"),
        (",tenants,tenants", ",1,1", "1: header: has tenants twice"),
    ],
)
def test_a_bad_optional_column_is_one_line(
    tmp_path: Path, more: str, values: str, message: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"{HEADER}{more}\n{GOOD}{values}\n")
    with pytest.raises(ProfileError) as caught:
        read_profiles(path)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_points_that_do_not_belong_together() -> None:
    with pytest.raises(ProfileError, match="m mig 1 8 1 1 is given twice"):
        Profiles((point(), point(ms=41)))
    with pytest.raises(ProfileError, match="device: must be one device"):
        Profiles((point(), point(device="h100-80gb")))
    with pytest.raises(ProfileError, match="at least one point"):
        Profiles(())


@settings(max_examples=30, deadline=None)
@given(st.lists(POINTS, min_size=1, max_size=20, unique_by=lambda p: p.key), st.integers(1, 9))
def test_a_file_reads_as_it_was_written(points: list[Point], tenants: int) -> None:
    points = [replace(p, tenants=min(tenants, p.batch)) for p in points]
    path = Path(TEMPORARY.name) / "profiles.csv"
    write_profiles(path, points)
    assert read_profiles(path) == Profiles(tuple(points))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["m,a100-80gb,mig,1,8"], "3: row: must have 9 fields, has 5; is it cut short?"),
        (["m,a100-80gb,mig,1,8,1,nan,200,measured"], "3: latency_ms: must be a number above 0"),
        (["m,a100-80gb,mig,1,8,1,-4,200,measured"], "3: latency_ms: must be a number above 0"),
        (["m,a100-80gb,mig,1,8,1,1e300,200,measured"], "3: latency_ms: must be a number above 0"),
        (["m,a100-80gb,mig,1,8,1,inf,200,measured"], "3: latency_ms: must be a number above 0"),
        (["m,a100-80gb,mig,1,8,1,,200,measured"], "3: latency_ms: must be a number, got ''"),
        (["m,a100-80gb,mig,1,8,1,0.04,200,measured"], "3: throughput_rps: 200 is far from"),
        (["m,a100-80gb,mig,1,8.5,1,40,200,measured"], "3: batch: must be a whole number, got"),
        (["m,a100-80gb,mig,0,8,1,40,200,measured"], "3: units: must be a whole number from 1"),
        (["m,a100-80gb,gpc,1,8,1,40,200,measured"], "3: kind: must be one of cores, sm, mps, mig"),
        (["m,a100-80gb,mig,1,8,1,40,200,guessed"], "3: source: must be one of measured, pred"),
        (
            [",a100-80gb,mig,1,8,1,40,200,measured"],
            "3: model: must be a text of 1 to 300 characters",
        ),
        (["m,a100-80gb,mig,2,8,1,40,200,measured", GOOD], "4: batch: this point was given before"),
        (["m,h100-80gb,mig,1,8,1,40,200,measured"], "3: device: must be a100-80gb as in the rows"),
        (['m,a100-80gb,mig,2,8,1,40,200,"measured'], "3: row: is not CSV"),
    ],
)
def test_a_bad_row_is_one_line_with_file_row_and_field(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text("\n".join([HEADER, GOOD, *rows]) + "\n")
    with pytest.raises(ProfileError) as caught:
        read_profiles(path)
    assert str(caught.value).startswith(f"{path}:{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: header: must be model,device,"),
        (HEADER.encode(), ":1: profiles: holds no point"),
        (b"a,b\n1,2\n", ":1: header: must be"),
        (b"\xff\xfe\x00", "must be UTF-8 text"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        read_profiles(path)
    assert message in str(caught.value)


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        read_profiles(tmp_path / "absent.csv")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode())),
    st.integers(0, len(HEADER) + len(GOOD) + 2),
)
def test_no_content_brings_anything_but_a_profile_error(noise: bytes, at: int) -> None:
    path = Path(TEMPORARY.name) / "noise.csv"
    whole = f"{HEADER}\n{GOOD}\n".encode()
    for read in (read_profiles, profile_import.parvagpu, profile_import.gpulet):
        path.write_bytes(whole[:at] + noise + whole[at:])
        assert "\n" not in refusal(read, path)


def refusal(read: Callable[[Path], Profiles], path: Path) -> str:
    try:
        read(path)
    except ProfileError as error:
        return str(error)
    return ""


def test_parvagpu_formats_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    head = ",".join(profile_import.PARVAGPU_HEADER)
    path.write_text(f"{head}\n1,4,2,50.5,0.079\n7,256,5,0,0\n")
    (read,) = profile_import.parvagpu(path)
    assert (read.model, read.units, read.batch, read.procs) == ("net", 1, 4, 2)
    assert (read.latency_ms, read.throughput_rps) == (79, 101)
    path.write_text(f"{head}\n1,4,2,50.5,79\n")
    with pytest.raises(ProfileError, match=r"net.csv:2: throughput_rps: 101 is far from"):
        profile_import.parvagpu(tmp_path)
    with pytest.raises(ProfileError, match=r"holds no <model>\.csv"):
        profile_import.parvagpu(tmp_path / "..")


def test_the_published_parvagpu_profiles() -> None:
    profiles = published.parvagpu()
    assert len(profiles.models) == 11
    best = {units: profiles.best("resnet50", under_ms=1e9, units=units, max_procs=1)
            for units in (1, 7)}  # fmt: skip
    assert [round(each.throughput_rps) for each in best.values() if each] == [412, 2582]


def test_the_published_gpulet_profiles() -> None:
    profiles = profile_import.gpulet(published.data("gpulet_fig3_latency.csv"))
    assert (len(profiles), profiles.kinds, profiles.device) == (144, ("mps",), "rtx-2080ti")
    vgg = profiles.exact("vgg16", "mps", 100, 32)
    assert vgg is not None
    assert vgg.latency_ms == 63.3
