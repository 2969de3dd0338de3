"""A workload's models as modules that run: found, given weights; or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from spacetime.errors import ModelError
from spacetime.models.example_rows import DTYPES
from spacetime.models.loading import load_model, load_models
from spacetime.workload.workload import DATATYPES, InputSpec, Tenant, Workload, WorkloadError

SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))

def nothing():
    return 3

def breaks():
    raise OSError("no such\\nfile")
"""
ONE = (InputSpec((1, 6), "FP32"),)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name = f"live_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.setenv("LIVE", name)
    return tmp_path


def tenant(folder: Path, factory: str = "net", **fields: object) -> Tenant:
    module = next(folder.glob("live_*.py")).stem
    given = {"name": "a", "slo_ms": 50, "rate_rps": 1, "example_inputs": ONE}
    return Tenant(**{"model": f"{module}:{factory}"} | given | fields)  # type: ignore[arg-type]


def test_a_factory_beside_the_workload_gives_a_model_and_requests(folder: Path) -> None:
    found = load_model(tenant(folder), folder)
    assert not found.module.training
    assert len({request[0].sum().item() for request in found.requests}) == len(found.requests)
    assert found.module(*found.example_inputs).shape == (1, 2)


def test_weights_are_random_by_tenant_and_the_same_every_time(folder: Path) -> None:
    load = Workload((tenant(folder), tenant(folder, name="b")), seed=3)
    state = torch.random.get_rng_state()
    first, again = load_models(load, folder), load_models(load, folder)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's draws are not touched
    a, b, a2 = (next(m.module.parameters()) for m in (first["a"], first["b"], again["a"]))
    assert torch.equal(a, a2)
    assert not torch.equal(a, b)


def test_weights_come_from_a_safetensors_file(folder: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    torch.manual_seed(7)
    wanted = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    safetensors.save_file(wanted.state_dict(), folder / "w.safetensors")
    found = load_model(tenant(folder, weights="w.safetensors"), folder).module
    pairs = zip(found.parameters(), wanted.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_requests_that_are_batches_are_drawn_from_the_mix(folder: Path) -> None:
    asked = load_model(tenant(folder, batch_mix=((2, 1.0), (5, 3.0))), folder).requests
    sizes = [len(request[0]) for request in asked]
    assert set(sizes) == {2, 5}
    assert 0.5 < sizes.count(5) / len(sizes) < 0.95


def test_every_datatype_of_a_workload_has_a_dtype() -> None:
    assert set(DTYPES) == set(DATATYPES)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"example_inputs": ()}, "tenant a: example_inputs: is missing; a live run needs"),
        ({"model": "resnet50"}, "tenant a: model: must be package.module:factory"),
        ({"model": "no_such_package:f"}, "there is no module no_such_package; it is looked for"),
        ({"factory": "other"}, "has no function other"),
        ({"factory": "nothing"}, "must return a torch.nn.Module, it returned int"),
        ({"weights": "absent.safetensors"}, r"tenant a: weights: .*absent.safetensors: "),
        ({"weights": "bad.safetensors"}, "is no safetensors file"),
        ({"weights": "other.safetensors"}, r"does not fit .*:net: "),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(
    folder: Path, fields: dict[str, object], reason: str
) -> None:
    if "weights" in fields:
        safetensors = pytest.importorskip("safetensors.torch")
        (folder / "bad.safetensors").write_bytes(b"no header")
        safetensors.save_file({"x": torch.ones(1)}, folder / "other.safetensors")
    with pytest.raises(WorkloadError, match=reason) as refusal:
        load_model(tenant(folder, **fields), folder)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)


def test_a_factory_that_raises_is_the_models_fault(folder: Path) -> None:
    with pytest.raises(ModelError, match="tenant a: the model raised OSError: no such"):
        load_model(tenant(folder, "breaks"), folder)
