"""MIG geometry against the counts NVIDIA's rule gives, and placements by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacetime.devices import mig
from spacetime.devices.facts import DEVICES, device
from spacetime.devices.mig import Placement
from spacetime.errors import UnsupportedError

WITH_MIG = [name for name, facts in DEVICES.items() if facts.mig]


def test_the_counts_of_the_rule() -> None:
    assert len(mig.layouts()) == len(set(map(frozenset, mig.layouts()))) == 297
    assert len(mig.maximal_layouts()) == 19
    assert len(mig.multisets()) == 37
    assert mig.maximal_multisets() == (
        (7,), (4, 3), (4, 2, 1), (4, 1, 1, 1), (3, 3), (3, 2, 2), (3, 2, 1, 1), (3, 1, 1, 1, 1),
        (2, 2, 2, 1), (2, 2, 1, 1, 1), (2, 1, 1, 1, 1, 1), (1,) * 7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("placements", "holds"),
    [
        ([(3, 0), (3, 4)], True),
        ([(4, 0), (3, 4)], True),
        ([(4, 0), (2, 2)], False),  # memory slices overlap
        ([(3, 2)], False),  # no such start
        ([(5, 0)], False),  # no such size
        ([(4, 0), (2, 4), (1, 6), (1, 6)], False),
        ([(3, 0), (1, 4), (1, 5), (1, 6)], True),
        ([(3, 0), (1, 3)], False),  # 3g takes four memory slices
        ([], True),
    ],
)
def test_placements_by_hand(placements: list[tuple[int, int]], holds: bool) -> None:
    assert mig.fits([Placement(*each) for each in placements]) is holds


@given(st.lists(st.sampled_from([*mig.SIZES, 5]), max_size=8))
def test_arrange_finds_a_layout_exactly_where_there_is_one(sizes: list[int]) -> None:
    starts = mig.arrange(tuple(sizes))
    possible = not sizes or tuple(sorted(sizes, reverse=True)) in mig.multisets()
    assert (starts is not None) is possible
    if starts is not None:
        assert mig.fits(map(Placement, sizes, starts))


@pytest.mark.parametrize("name", WITH_MIG)
def test_every_maximal_multiset_stays_inside_the_device(name: str) -> None:
    facts = device(name)
    for sizes in map(mig.sizes_of, mig.maximal_layouts(facts.geometry)):
        profiles = [facts.mig_profile(size) for size in sizes]
        assert sum(profile.sms for profile in profiles) <= facts.sms
        assert sum(profile.memory_mib for profile in profiles) <= facts.memory_gib * 1024
        assert max(map(sizes.count, sizes)) <= profiles[0].most or len(set(sizes)) > 1


def test_slices_are_no_measure_of_sms_on_hopper() -> None:
    for name in ("h100-80gb", "h200-141gb"):
        sms = {size: device(name).mig_profile(size).sms for size in mig.SIZES}
        assert sms == {1: 16, 2: 32, 3: 60, 4: 64, 7: 132}
    assert [device("a100-80gb").mig_profile(size).sms for size in mig.SIZES] == [14, 28, 42, 56, 98]


def test_names_as_nvidia_smi_prints_them() -> None:
    assert [profile.name for profile in device("h200-141gb").mig] == [
        "1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb",
    ]  # fmt: skip
    assert [profile.id for profile in device("a100-40gb").mig] == [19, 15, 14, 9, 5, 0]


def test_the_whole_device_by_kind() -> None:
    a100 = device("sim:a100-80gb")
    assert [a100.whole(kind) for kind in ("mig", "mps", "sm")] == [7, 100, 108]
    with pytest.raises(UnsupportedError, match="v100-16gb has no partitions of kind mig"):
        device("v100-16gb").whole("mig")
    with pytest.raises(UnsupportedError, match="no MIG instance of 5"):
        a100.mig_profile(5)


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UnsupportedError, match=r"'a100' is unknown; a100-[48]0gb is"):
        device("a100")
