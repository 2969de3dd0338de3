"""Architectures of `transformers` with random weights, fed with scikit-learn's two photographs.

Nothing is downloaded: models are built from configurations. Random networks shrink or blow up
their signal when normalisation statistics do not match it, so these are measured on the pictures
once; answers then differ from picture to picture and from tenant to tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging

from spacetime.demo.zoo.exhibits import ZooModel

SIDE = 64
CLASSES = 100


class Classifier(nn.Module):
    """A `transformers` classifier that answers scores only: `[N, 3, 64, 64]` to `[N, 100]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.network(pixels).logits
        return scores


def _resnet() -> Classifier:
    return Classifier(
        ResNetForImageClassification(
            ResNetConfig(
                embedding_size=32,
                hidden_sizes=[32, 64, 128, 256],
                depths=[2, 2, 2, 2],
                layer_type="basic",
                num_labels=CLASSES,
            )
        )
    )


def _mobilenet() -> Classifier:
    return Classifier(
        MobileNetV2ForImageClassification(
            MobileNetV2Config(
                image_size=SIDE, depth_multiplier=0.5, tf_padding=False, num_labels=CLASSES
            )
        )
    )


def _transformer() -> Classifier:
    return Classifier(
        ViTForImageClassification(
            ViTConfig(
                image_size=SIDE,
                patch_size=8,
                hidden_size=128,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=512,
                num_labels=CLASSES,
                initializer_range=0.1,  # the default 0.02 is for training: it hides the picture
            )
        )
    )


ARCHITECTURES: dict[str, Callable[[], Classifier]] = {
    "resnet": _resnet,
    "mobilenet": _mobilenet,
    "transformer": _transformer,
}


@cache
def _pictures() -> Tensor:
    """Crops of a temple and a flower, reduced: `[90, 3, 64, 64]`, mean 0 and deviation 1."""
    crops = []
    for photograph in load_sample_images().images:
        pixels = torch.tensor(photograph, dtype=torch.float32).permute(2, 0, 1)
        windows = pixels.unfold(1, 2 * SIDE, SIDE).unfold(2, 2 * SIDE, SIDE)
        crops.append(windows.permute(1, 2, 0, 3, 4).flatten(0, 1))
    pictures = F.avg_pool2d(torch.cat(crops), 2)
    return (pictures - pictures.mean()) / pictures.std()


def _measure_statistics(model: nn.Module, pictures: Tensor) -> None:
    """Set every batch-norm's mean and variance to what the pictures give."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # one pass over everything replaces the initial values
    with torch.no_grad():
        model.train()(pictures)


def build(architecture: str, index: int, seed: int) -> ZooModel:
    """Tenant `index` of an architecture, with weights drawn from `seed` and its index."""
    logging.set_verbosity_error()  # it warns that models never trained have no loss
    pictures = _pictures()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1000 * seed + index)
        model = ARCHITECTURES[architecture]()
        _measure_statistics(model, pictures)
    return ZooModel(name=f"{architecture}-{index}", model=model.eval(), pool=pictures)


BUILDERS = {name: partial(build, name) for name in ARCHITECTURES}
