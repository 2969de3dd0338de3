"""A caller gets what the module alone returns: whoever shares the launch, whatever the values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spacetime as st
from spacetime.models.trial import same_rows

DEVICES = ["cpu", "fake:h200"]


class Centred(nn.Module):
    """Subtracts what is usual among those asked together."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Packed(nn.Module):
    """Steps up to the longest of the batch, as after pack_padded_sequence; lengths are [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        kept = torch.arange(5)[None] < lengths.amax()
        return self.layer(x * kept)  # type: ignore[no-any-return]


class Ranked(nn.Module):
    """How many of the batch are smaller."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] > x[None]).sum(1).float()


def asked(tenant: st.Tenant, calls: Sequence[tuple[Tensor, ...]]) -> list[Any]:
    """All at once, so that they would share launches if they could."""
    futures = [tenant.submit(*call) for call in calls]
    return [future.result() for future in futures]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("example", [torch.zeros(1, 4), torch.ones(3, 4)])
@pytest.mark.parametrize("model", [Centred(), Ranked()])
def test_samples_that_depend_on_each_other_run_alone_whatever_the_example(
    model: nn.Module, example: Tensor, device: str
) -> None:
    model.eval()
    calls = [(torch.randn(1, 4),) for _ in range(24)]
    with st.Session(device) as session:
        tenant = session.add(model, example_inputs=(example,))
        answers = asked(tenant, calls)
        why = session.explain()
    assert all(same_rows([y], [model(*call)]) for y, call in zip(answers, calls, strict=True))
    assert "not proven that samples are apart" in why


def test_lengths_of_a_batch_are_each_requests_own() -> None:
    model = Packed().eval()
    calls = [(torch.randn(1, 5), torch.randint(1, 6, (1,))) for _ in range(24)]
    with st.Session("cpu") as session:
        tenant = session.add(model, example_inputs=(torch.randn(1, 5), torch.tensor([5])))
        answers = asked(tenant, calls)
        why = session.explain()
    assert all(same_rows([y], [model(*call)]) for y, call in zip(answers, calls, strict=True))
    assert "amax" in why


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("worst", [float("nan"), float("inf"), 3e38])
def test_a_neighbour_of_extremes_changes_nothing(worst: float, device: str) -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    calls = [(torch.randn(1, 4) if i % 2 else torch.full((1, 4), worst),) for i in range(16)]
    with st.Session(device) as session:
        tenants = [session.add(model, example_inputs=(torch.zeros(1, 4),)) for _ in range(2)]
        futures = [tenants[i % 3 % 2].submit(*call) for i, call in enumerate(calls)]
        answers = [future.result() for future in futures]
    assert all(same_rows([y], [model(*call)]) for y, call in zip(answers, calls, strict=True))


def test_what_is_no_number_stays_none_through_fused_layers() -> None:
    """oneDNN's convolution with its own ReLU returns numbers for NaN: it must not run there."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    pictures = [torch.randn(1, 3, 16, 16) for _ in range(4)]
    for picture, value in zip(pictures, [float("nan"), float("inf"), -1e38], strict=False):
        picture[0, 1, 2, 3] = value
    with st.Session("cpu", lanes=1) as session:
        tenant = session.add(model, example_inputs=(torch.zeros(1, 3, 16, 16),))
        answers = asked(tenant, [(x,) for x in pictures])
    assert all(same_rows([y], [model(x)]) for y, x in zip(answers, pictures, strict=True))


class PairOnly(nn.Module):
    """Takes batches of two, which it compares."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_may_take_no_batch_but_its_examples(device: str) -> None:
    model = PairOnly().eval()  # one sample alone raises
    calls = [(torch.randn(2, 4),) for _ in range(8)]
    with st.Session(device) as session:
        answers = asked(session.add(model, example_inputs=(torch.zeros(2, 4),)), calls)
    assert all(same_rows([y], [model(*call)]) for y, call in zip(answers, calls, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_a_size_that_depends_on_values_runs_alone(device: str) -> None:
    model = Labelled(lambda y: torch.unique(y.round(), return_inverse=True)[1]).eval()
    calls = [(torch.randn(1, 4),) for _ in range(8)]
    with st.Session(device) as session:
        answers = asked(session.add(model, example_inputs=(torch.zeros(1, 4),)), calls)
    assert all(same_rows(y, model(*call)) for y, call in zip(answers, calls, strict=True))


class Labelled(nn.Module):
    """Tensors, and beside them what is none."""

    def __init__(self, beside: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.beside = beside

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y = self.layer(x)
        return y, self.beside(y)


def counted(numbers: Any = itertools.count()) -> Any:  # noqa: B008 - one counter for all calls
    return lambda _: next(numbers)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_no_tensor_is_each_answers_own(device: str) -> None:
    """A label of the value, a count, a set: none of them is the example's."""
    beside = [lambda y: "high" if float(y.sum()) > 0 else "low", counted(), lambda y: {len(y)}]
    for each in beside:
        model = Labelled(each).eval()
        with st.Session(device) as session:
            tenant = session.add(model, example_inputs=(torch.zeros(1, 4),))
            calls = [(torch.randn(1, 4),) for _ in range(8)]
            answers = asked(tenant, calls)
        assert all(same_rows([y], [model(*c)[0]]) for (y, _), c in zip(answers, calls, strict=True))
        if each is beside[0]:
            assert [label for _, label in answers] == [model(*call)[1] for call in calls]
        elif each is beside[1]:
            assert len({number for _, number in answers}) == len(answers)
        else:
            assert len({id(own) for _, own in answers}) == len(answers)


def test_what_is_always_the_same_is_batched() -> None:
    model = Labelled(lambda _: {"unit": "metres", "digits": 2, "none": None}).eval()
    with st.Session("cpu") as session:
        tenant = session.add(model, example_inputs=(torch.zeros(1, 4),))
        one, other = asked(tenant, [(torch.randn(1, 4),) for _ in range(2)])
        why = session.explain()
    assert one[1] == other[1] == {"unit": "metres", "digits": 2, "none": None}
    assert one[1] is not other[1]
    assert "alone" not in why


class Sometimes(nn.Module):
    """A second output for some inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return {"y": y} if float(y[0, 0]) > 0 else {"y": y, "doubt": y.abs()}


def test_an_output_that_comes_and_goes_is_returned_as_it_is() -> None:
    model = Sometimes().eval()
    calls = [(torch.randn(1, 4),) for _ in range(16)]
    with st.Session("cpu") as session:
        answers = asked(session.add(model, example_inputs=(torch.zeros(1, 4),)), calls)
    for answer, call in zip(answers, calls, strict=True):
        want = model(*call)
        assert answer.keys() == want.keys()
        assert same_rows([*answer.values()], [*want.values()])


def test_an_owner_may_forbid_batching() -> None:
    model = nn.Linear(4, 2).eval()
    with st.Session("cpu", lanes=1) as session:
        tenant = session.add(model, example_inputs=(torch.zeros(1, 4),), batchable=False)
        asked(tenant, [(torch.randn(1, 4),) for _ in range(32)])
        report = session.report()
        why = session.explain()
    assert report["tenants"][tenant.name]["mean_batch"] == 1
    assert "batchable=False" in why


def test_an_owners_word_that_a_trial_refutes_is_refused() -> None:
    with (
        st.Session("cpu") as session,
        pytest.raises(st.InvalidInput, match="batchable must be False or None, got True, but"),
    ):
        session.add(Centred().eval(), example_inputs=(torch.zeros(1, 4),), batchable=True)


def test_an_owners_word_stands_for_an_operation_without_a_rule() -> None:
    library = torch.library.Library("answers_test", "DEF")
    try:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("twice", torch.empty_like, "Meta")
        model = Labelled(lambda y: torch.ops.answers_test.twice(y)).eval()  # noqa: PLW0108
        example = (torch.zeros(1, 4),)
        with st.Session("cpu", lanes=1) as session:
            plain = session.add(model, example_inputs=example, name="plain")
            trusted = session.add(model, example_inputs=example, name="trusted", batchable=True)
            calls = [(torch.randn(1, 4),) for _ in range(16)]
            answers = asked(trusted, calls) + asked(plain, calls)
            assert max(trusted.family.buckets) > 1
            assert plain.family.buckets == (1,)
            assert "answers_test" not in session.explain()
        want = [model(*call) for call in calls] * 2
    finally:
        library._destroy()
    assert all(same_rows(a, b) for a, b in zip(answers, want, strict=True))


def test_a_language_models_cache_is_its_callers_own() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_size=16,
        intermediate_size=32, vocab_size=50,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config).eval()
    calls = [(torch.randint(0, 50, (1, 6)),) for _ in range(4)]
    with st.Session("cpu", lanes=1) as session:
        answers = asked(session.add(model, example_inputs=(torch.zeros(1, 6).long(),)), calls)
    with torch.no_grad():
        for answer, call in zip(answers, calls, strict=True):
            want = model(*call)
            assert same_rows([answer.logits], [want.logits])
            got, known = (y.past_key_values.layers[0] for y in (answer, want))
            assert same_rows([got.keys, got.values], [known.keys, known.values])
    caches = [answer.past_key_values for answer in answers]
    assert len({id(cache) for cache in caches}) == len(caches)
