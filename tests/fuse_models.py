"""Models for the fuse tests: small ones for single operations, tiny transformers for whole nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

torch.set_num_threads(1)  # tiny operands; more threads only wait for each other


def tenants_of(make: Callable[[], nn.Module], count: int) -> list[nn.Module]:
    """tenants_of(make, count): models with weights and statistics that all differ."""
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = make().eval()
        with torch.no_grad():
            for value in [*model.parameters(), *model.buffers()]:
                if value.is_floating_point():
                    value.add_(torch.rand_like(value) * 0.2 + 0.01)
        models.append(model)
    return models


def transformer(name: str) -> tuple[Callable[[], nn.Module], tuple[Tensor, ...]]:
    """transformer(name): a maker of tiny randomly initialised models, and an example input."""
    import transformers as tr  # noqa: PLC0415 - seconds to import, only some tests need it

    picture = torch.randn(2, 3, 32, 32)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    configs: dict[str, tuple[Any, Any, tuple[Tensor, ...]]] = {
        "resnet": (
            tr.ResNetForImageClassification,
            tr.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
            ),
            (picture,),
        ),
        "bottleneck": (
            tr.ResNetModel,
            tr.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1]),
            (picture,),
        ),
        "mobilenet": (
            tr.MobileNetV2ForImageClassification,
            tr.MobileNetV2Config(image_size=32, depth_multiplier=0.1, num_labels=5),
            (picture,),
        ),
        "convnext": (
            tr.ConvNextForImageClassification,
            tr.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
            (picture,),
        ),
        "regnet": (
            tr.RegNetForImageClassification,
            tr.RegNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], groups_width=4
            ),
            (picture,),
        ),
        "vit": (
            tr.ViTForImageClassification,
            tr.ViTConfig(**small, intermediate_size=32, image_size=32, patch_size=8),
            (picture,),
        ),
        "bert": (
            tr.BertForSequenceClassification,
            tr.BertConfig(**small, intermediate_size=32, vocab_size=50),
            (torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)),
        ),
    }
    kind, config, inputs = configs[name]
    return lambda: kind(config), inputs
