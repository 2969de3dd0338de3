"""Whole networks of the transformers library: fused equals one by one."""

from __future__ import annotations

import pytest
import torch
from fuse_models import assert_equals_alone, tenants_of, transformer

NAMES = ["resnet", "bottleneck", "mobilenet", "convnext", "regnet", "vit", "bert"]


@pytest.mark.parametrize("name", NAMES)
def test_fused_equals_alone(name: str) -> None:
    make, example = transformer(name)
    models = tenants_of(make, 4)
    fused = assert_equals_alone(models, example)
    assert {row.how for row in fused.report.rows} <= {"fused", "shared"}, str(fused.report)
    got = fused(*example, index=torch.tensor([1, 0]))
    with torch.no_grad():
        assert type(got) is type(models[0](*example))
