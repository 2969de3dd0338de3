"""The public architectures' layer lists, and predictions beside ParvaGPU's measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import parvagpu
from torch import Tensor, nn

from spacetime.benchmarks import bench_cost, record
from spacetime.benchmarks.studies import architectures, cost_plans
from spacetime.benchmarks.studies.architectures import MODELS
from spacetime.devices.facts import A100_80
from spacetime.errors import UnsupportedError
from spacetime.models.layers import layers_of
from spacetime.profiles import cost
from spacetime.profiles.cost import Calibration

# Multiply-adds in 10^9 and parameters in 10^6, of one 224 x 224 image, as torchvision publishes
# them for its weights; Inception's own is for 299 x 299 and has 3.33 more in its auxiliary head.
PUBLISHED = {
    "resnet50": (4.09, 25.56),
    "resnet101": (7.80, 44.55),
    "resnet152": (11.51, 60.19),
    "vgg16": (15.47, 138.36),
    "vgg19": (19.63, 143.67),
    "densenet121": (2.83, 7.98),
    "densenet169": (3.36, 14.15),
    "densenet201": (4.29, 20.01),
    "mobilenetv2": (0.30, 3.50),
}


def totals(layers: tuple[cost.Layer, ...]) -> tuple[float, float]:
    flops = sum(layer.flops for layer in layers)
    return flops / 2e9, sum(layer.weights * layer.count for layer in layers) / 1e6


@pytest.mark.parametrize("model", PUBLISHED)
def test_work_and_weights_are_the_published_ones(model: str) -> None:
    assert totals(MODELS[model]()) == pytest.approx(PUBLISHED[model], abs=0.01)


def test_inception_and_bert_too() -> None:
    assert totals(architectures.inception_v3(299)) == pytest.approx((5.71, 27.16 - 3.33), abs=0.01)
    products, weights = totals(MODELS["bert"]())
    # 24 layers of 12 width^2 weights, each used by 128 tokens, and 2 tokens^2 width of attention.
    assert products == pytest.approx(24 * (12 * 1024**2 * 128 + 2 * 128**2 * 1024) / 1e9)
    assert weights == pytest.approx(302.3, abs=0.1)  # 335 less the embedding's tables and the head


def test_the_benchmark_and_the_model_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cost, "DTYPE", "fp32")
    layers = MODELS["resnet50"]()
    known = Calibration(0.6, 0.5, launch_us=30, ahead=True)
    points = list(cost.points(
        "resnet50", layers, A100_80, "mig", units=(1, 7), batches=(1, 32), procs=(1, 3),
        calibration=known,
    ))  # fmt: skip
    studied = bench_cost.study("resnet50", layers, points, (0.5, 0.6))
    assert studied.error((0.6, 0.5, 30.0)) == pytest.approx(0, abs=1e-9)
    assert studied.error((0.5, 0.5, 30.0)) > 0.01


def test_a_model_left_out_is_predicted(tmp_path: Path) -> None:
    result = bench_cost.run(quick=True, out=tmp_path, as_json=True)
    assert result["met"]
    assert result["median_family_out"] <= bench_cost.GOAL
    worst = {row["model"] for row in result["rows"] if row["left_out"] > bench_cost.GOAL}
    assert worst <= {"inceptionv3", "bert"}
    assert (tmp_path / "cost.png").stat().st_size > 10_000


def test_plans_from_predictions_are_judged_by_measurements() -> None:
    known = parvagpu()
    perfect = cost_plans.compared(known, bench_cost.measured_us)
    for row in perfect:
        assert row["devices"]["predicted"] == row["devices"]["measured"]
    hopeful = cost_plans.compared(known, lambda p: bench_cost.measured_us(p) / 3)
    for row in hopeful:
        assert row["devices"]["predicted"] <= row["devices"]["measured"]
        assert row["bounds"]["promise"] > 0


def test_without_the_profiles_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "benchmarks" / "record.py"))
    with pytest.raises(UnsupportedError, match="is absent; run this in a checkout"):
        bench_cost.run(quick=True)


@pytest.mark.parametrize("name", ["ResNet", "MobileNetV2"])
def test_a_graph_and_the_published_shapes_agree(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(num_labels=1000)
    config.tf_padding = False  # MobileNetV2's: PyTorch's own pads as the paper's reference does
    network = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    found = layers_of(Scores(network).eval(), (torch.zeros(1, 3, 224, 224),))
    work, weights = totals(found)
    wanted = totals(MODELS["resnet50" if name == "ResNet" else "mobilenetv2"]())
    assert work == pytest.approx(wanted[0], rel=1e-3)
    assert weights == pytest.approx(wanted[1], rel=5e-3)  # batch-norm is folded


class Scores(nn.Module):
    """A classifier that answers scores only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.network(pixels).logits
        return scores
