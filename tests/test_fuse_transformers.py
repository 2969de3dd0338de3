"""Whole networks of the transformers library: fused equals one by one."""

from __future__ import annotations

import pytest
import torch
from fuse_models import tenants_of, transformer
from torch.utils import _pytree as pytree

from spacetime.fusion import fuse

NAMES = ["resnet", "bottleneck", "mobilenet", "convnext", "regnet", "vit", "bert"]


@pytest.mark.parametrize("name", NAMES)
def test_fused_equals_alone(name: str) -> None:
    make, example = transformer(name)
    models = tenants_of(make, 4)
    fused = fuse(models[0], [m.state_dict() for m in models], example_inputs=example)
    assert {row.how for row in fused.report.rows} <= {"fused", "shared"}, str(fused.report)
    assert fused.report.bytes_per_tenant <= 1.1 * fused.report.own_bytes_per_tenant
    for index in ([3], [2, 2, 2], [3, 0, 3, 1, 2], [1, 2, 3]):
        inputs = tuple(_samples(t, len(index)) for t in example)
        numbers = torch.tensor(index)
        got = fused(*inputs, index=numbers)
        flat = pytree.tree_leaves(got)
        scripted = fused.script()(numbers, *inputs)
        for slot, tenant in enumerate(index):
            with torch.no_grad():
                want = models[tenant](*(t[slot : slot + 1] for t in inputs))
            assert type(got) is type(want)
            for a, b, c in zip(flat, pytree.tree_leaves(want), scripted, strict=True):
                scale = b.abs().max()
                assert (a[slot] - b[0]).abs().max() <= 1e-4 * scale
                assert (c[slot] - b[0]).abs().max() <= 1e-4 * scale


def _samples(example: torch.Tensor, count: int) -> torch.Tensor:
    if example.is_floating_point():
        return torch.randn(count, *example.shape[1:])
    return torch.randint(0, int(example.max()) + 1, (count, *example.shape[1:]))
