"""Models for the fuse tests: small ones for single operations, tiny transformers for whole nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spacetime.fusion import Fused, fuse

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


class Net(nn.Module):
    """A network given as a function of itself and its inputs, and its parts by name."""

    def __init__(self, forward: Any, parts: dict[str, Callable[[], Any]]) -> None:
        super().__init__()
        self._forward = forward
        for name, make in parts.items():
            setattr(self, name, make())

    def forward(self, *inputs: Tensor) -> Any:
        return self._forward(self, *inputs)


INDICES = ([3], [2, 2, 2], [3, 0, 3, 1, 2], [1, 2, 3])


def assert_equals_alone(
    models: list[nn.Module],
    example: tuple[Tensor, ...],
    *,
    indices: tuple[list[int], ...] = INDICES,
    fold: bool = True,
    script: bool = True,
) -> Fused:
    """Fuse, and compare every slot of mixed batches with its model called on that one sample."""
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=example, fold=fold)
    assert fused.report.bytes_per_tenant <= 1.1 * fused.report.own_bytes_per_tenant
    for index in indices:
        inputs = tuple(samples_like(t, len(index)) for t in example)
        numbers = torch.tensor(index)
        results = [pytree.tree_leaves(fused(*inputs, index=numbers))]
        if script and len(index) != 3:  # compiling takes longest, and one mixed size will do
            results.append(list(fused.script()(numbers, *inputs)))
        for slot, tenant in enumerate(index):
            with torch.no_grad():
                want = models[tenant](*(t[slot : slot + 1] for t in inputs))
            tensors = [t for t in pytree.tree_leaves(want) if isinstance(t, Tensor)]
            for got in results:
                for a, b in zip(got, tensors, strict=True):
                    assert (a[slot] - b[0]).abs().max() <= 1e-4 * b.abs().max()
    return fused


def samples_like(example: Tensor, count: int) -> Tensor:
    """Random samples of an example's shape and kind."""
    shape = (count, *example.shape[1:])
    if example.dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if example.is_floating_point():
        return torch.randn(shape)
    return torch.randint(0, int(example.max()) + 1, shape)


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
