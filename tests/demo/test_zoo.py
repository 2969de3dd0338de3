"""The zoo: models that are different, repeatable, alive, and right about the digits."""

from __future__ import annotations

import pytest
import torch

from spacetime.demo.zoo import exhibits as zoo


def test_digits_are_recognised_by_tenants_of_one_family() -> None:
    models = list(zoo.load("digits", 2))
    first, second = (model.model.state_dict() for model in models)
    assert {key: value.shape for key, value in first.items()} == {
        key: value.shape for key, value in second.items()
    }
    for entry in models:
        assert entry.labels is not None
        assert not entry.model.training
        with torch.inference_mode():
            right = entry.model(entry.pool).argmax(1) == entry.labels
        assert right.float().mean() > 0.95, entry.name


def test_same_seed_same_weights_and_the_callers_randomness_is_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    (one,), (two,), (other,) = (list(zoo.load("transformer", 1, seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [torch.cat([p.flatten() for p in m.model.parameters()]) for m in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("kind", ["resnet", "mobilenet", "transformer"])
def test_photograph_models_tell_pictures_apart(kind: str) -> None:
    (entry,) = zoo.load(kind, 1)
    with torch.inference_mode():
        scores = entry.model(entry.pool)
    assert scores.shape == (len(entry.pool), 100)
    assert torch.isfinite(scores).all()
    assert scores.std(0).mean() > 0.05
    assert len(set(scores.argmax(1).tolist())) > 5


@pytest.mark.slow
def test_all_takes_each_kind_in_turn() -> None:
    names = [entry.name for entry in zoo.load("all", 5)]
    assert names == ["digit-0", "resnet-0", "mobilenet-0", "transformer-0", "odd-1"]


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of digits, resnet"):
        next(zoo.load("cats", 1))
