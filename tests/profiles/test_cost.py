"""Predictions: waves, rooflines, partitions of devices, and layers read from a model's graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import data
from torch import Tensor, nn

from spacetime.benchmarks import bench_dsts
from spacetime.devices.facts import A100_80, DEVICES, H200, V100, device
from spacetime.errors import UnsupportedError
from spacetime.models.layers import layers_of
from spacetime.profiles import cost
from spacetime.profiles.cost import Calibration, Layer
from spacetime.profiles.profile import Profiles
from spacetime.profiles.profile_file import read_profiles, write_profiles

LINEAR = Layer("product", m=128, n=1024, k=1024, values=2 * 128 * 1024, weights=1024 * 1024)
SIZES = st.integers(1, 3000)
LAYERS = st.builds(
    Layer, st.sampled_from(cost.OPS), m=SIZES, n=SIZES, k=SIZES, groups=st.integers(1, 32),
    values=st.integers(0, 10**7), weights=st.integers(0, 10**7), count=st.integers(1, 50),
)  # fmt: skip
EXACT = Calibration(compute=1, bandwidth=1, launch_us=10)


def test_one_tile_more_than_the_sms_hold_costs_a_wave() -> None:
    # D-STS Fig. 7: 256 x 128 in tiles of 128 x 64 is 4 blocks, so 80 SMs hold 20 products.
    waves = [cost.waves(256, 128, r, (128, 64), V100.sms) for r in (1, 20, 21, 40, 41, 120)]
    assert waves == [1, 1, 2, 2, 3, 6]
    assert bench_dsts.period() == 20


def test_a_kernel_takes_the_slower_of_arithmetic_and_bytes() -> None:
    on = cost.granted(A100_80, "mig", 7, dtype="tf32")
    moved = Layer("move", values=10**6)
    assert cost.kernel_us(moved, 3, on, EXACT) == pytest.approx(3 * 4e6 / 2039e3)
    # Full waves of the largest tile: 98 SMs at 156/108 TFLOP/s each.
    full = Layer("product", m=256 * 98, n=128, k=1024)
    assert cost.kernel_us(full, 1, on, EXACT) == pytest.approx(full.flops / (98 / 108 * 156e6))
    heavy = Layer("product", m=1, n=1, k=1, weights=10**8)
    assert cost.kernel_us(heavy, 1, on, EXACT) == pytest.approx(4e8 / 2039e3)


def test_launches_wait_for_each_other_or_run_ahead() -> None:
    on = cost.granted(A100_80, "mig", 1)
    layers = [Layer("move", values=10**6, count=5)]
    work = 5 * 4e6 / (2039e3 / 8)
    assert cost.latency_us(layers, 1, on, EXACT, launch_us=10) == pytest.approx(50 + work)
    ahead = Calibration(1, 1, launch_us=10, ahead=True)
    assert cost.latency_us(layers, 1, on, ahead, launch_us=10) == pytest.approx(max(50, work))
    assert cost.latency_us(layers, 1, on, ahead, launch_us=1000) == pytest.approx(5000)
    # Two processes fill each other's gaps; four of them need more than one takes alone.
    for procs in (1, 2, 4):
        took = cost.latency_us(layers, 1, on, EXACT, launch_us=10, procs=procs)
        assert took == pytest.approx(max(50 + work, procs * work))


def test_a_partition_holds_its_part_of_the_device() -> None:
    small, large = (cost.granted(H200, "mig", size) for size in (3, 4))
    assert (small.sms, large.sms) == (60, 64)
    assert small.bandwidth_gbs == large.bandwidth_gbs == 2400  # four of eight memory slices each
    assert cost.granted(H200, "mps", 50).sms == 66
    assert cost.granted(H200, "sm", 132).bandwidth_gbs == 4800
    assert cost.granted(H200, "sm", 8).bandwidth_gbs < 1000


@pytest.mark.parametrize(
    ("kind", "units", "dtype", "message"),
    [
        ("sm", 0, "fp32", "units: 0 of kind sm; h200-141gb has 1 to 132"),
        ("mps", 101, "fp32", "has 1 to 100"),
        ("mig", 5, "fp32", "no MIG instance of 5"),
        ("sm", 1, "fp4", "dtype: h200-141gb computes fp32"),
    ],
)
def test_what_a_device_does_not_have_is_refused(
    kind: str, units: int, dtype: str, message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        cost.granted(H200, kind, units, dtype=dtype)


def test_a_cpu_is_measured_not_predicted() -> None:
    with pytest.raises(UnsupportedError, match="nothing is known to predict cpu-2 by"):
        cost.granted(device("cpu-2"), "cores", 1)


def test_wrong_layers_and_calibrations_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="layer"):
        Layer("magic")
    with pytest.raises(UnsupportedError, match="layer"):
        Layer("move", values=-1)
    with pytest.raises(UnsupportedError, match="calibration"):
        Calibration(compute=1.5)


@settings(max_examples=60)
@given(st.lists(LAYERS, min_size=1, max_size=4), st.sampled_from(sorted(DEVICES)))
def test_more_inputs_are_never_faster_and_more_units_never_slower(
    layers: list[Layer], name: str
) -> None:
    facts = DEVICES[name]
    kind = "mig" if facts.mig else "mps"
    sliced = sorted({profile.units for profile in facts.mig})  # A30s have no three
    units = tuple(sliced) or (10, 30, 50, 100)
    found = Profiles(tuple(
        cost.points("m", layers, facts, kind, units=units, batches=(1, 3, 64), procs=(1, 3))
    ))  # fmt: skip
    assert {point.source for point in found} == {"predicted"}
    for point in found:
        least = sum(each.flops for each in layers if each.op != "move")
        least *= point.batch * point.procs
        assert point.latency_ms * 1e9 * facts.tflops["fp32"] >= least * (1 - 1e-9)
        for other in found:
            more = other.batch >= point.batch and other.procs >= point.procs
            if more and other.units <= point.units:
                assert other.latency_ms >= point.latency_ms * (1 - 1e-9)


def test_predictions_are_a_profile_file(tmp_path: Path) -> None:
    made = list(cost.points("m", [LINEAR], H200, "sm", units=(8, 132), batches=(1, 8)))
    write_profiles(tmp_path / "p.csv", made)
    assert read_profiles(tmp_path / "p.csv").points == tuple(made)


class Small(nn.Module):
    """A convolution with batch-norm, a depthwise one, attention and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(torch.relu(self.norm(self.first(x)))).flatten(2).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        scores: Tensor = self.last(x)
        return scores


def test_layers_are_read_from_a_models_graph() -> None:
    found = layers_of(Small().eval(), (torch.zeros(1, 3, 32, 32),))
    rows = 16 * 16
    products = [layer for layer in found if layer.flops]
    assert [(p.op, p.m, p.n, p.k, p.groups) for p in products] == [
        ("product", rows, 8, 27, 1),
        ("move", rows, 1, 9, 8),
        ("pairs", rows, rows, 16, 1),
        ("product", rows, 10, 8, 1),
    ]
    first = products[0]
    assert (first.values, first.weights) == (3 * 32 * 32 + 8 * rows, 8 * 27 + 8)  # folded
    # Only the ReLU is left: batch-norm is folded, the others look at memory differently.
    assert [layer.values for layer in found if not layer.flops] == [2 * 8 * rows]


def test_an_embedding_reads_the_rows_asked_for() -> None:
    model = nn.Sequential(nn.Embedding(10_000, 16), nn.Linear(16, 16)).eval()
    first, second = layers_of(model, (torch.zeros(1, 5, dtype=torch.int64),))
    assert (first.values, first.weights) == (2 * 5 * 16, 0)
    assert second.weights == 16 * 16 + 16


def test_dsts_figure_seven_is_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACETIME_DATA", str(data("dsts_fig7.csv").parent))
    result = bench_dsts.run(out=tmp_path, as_json=True)
    assert result["met"]
    for error in result["error"].values():  # also of rows left out of the fit
        assert max(error.values()) <= bench_dsts.GOAL
    for mode, gain in result["gains"].items():
        assert gain == pytest.approx(bench_dsts.PAPER_GAINS[mode], rel=0.1)
    curve = dict(zip(result["tenants"], result["curve"]["space-time"], strict=True))
    assert curve[20] > curve[22] < curve[40]  # the saw-tooth
    assert (tmp_path / "dsts.png").stat().st_size > 10_000


def test_without_the_figure_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPACETIME_DATA", str(tmp_path))
    with pytest.raises(UnsupportedError, match="is absent; set SPACETIME_DATA"):
        bench_dsts.run()
