"""A workload's models as modules that run: factory, weights, requests. Errors name the tenant.

`model` is `package.module:factory`, looked up as Python would and beside the workload file; the
factory takes nothing and returns an nn.Module. `weights` is a safetensors file: tensors and
nothing that could execute. What has no weights of its own gets random ones, the same every time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spacetime.errors import ModelError, UnsupportedError
from spacetime.models import example_rows
from spacetime.workload.workload import InputSpec, Tenant, Workload, WorkloadError

REQUESTS = 4  # different ones, sent in turn
MIXED_REQUESTS = 64  # where their sizes are drawn


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A tenant's module in eval mode, and requests for it: the positional inputs of one each."""

    module: nn.Module
    requests: tuple[tuple[Tensor, ...], ...]

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """One request's inputs."""
        return self.requests[0]


def load_models(workload: Workload, folder: Path = Path()) -> dict[str, LoadedModel]:
    """Every tenant's model by name; `folder` is the workload file's.

    Raises WorkloadError naming the tenant and field, ModelError for a factory that raises, and
    UnsupportedError where weights need a package that is not installed.
    """
    return {
        tenant.name: load_model(tenant, folder, seed=workload.seed + number)
        for number, tenant in enumerate(workload.tenants)
    }


def load_model(tenant: Tenant, folder: Path = Path(), *, seed: int = 0) -> LoadedModel:
    """One tenant's model; folder and errors as in `load_models`. seed: of the weights that the
    factory draws, and of the requests."""
    if not tenant.example_inputs:
        raise _wrong(
            tenant,
            "example_inputs",
            "is missing; a live run needs [{shape, datatype}], such as "
            "[{shape: [1, 3, 224, 224], datatype: FP32}]",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _made(tenant, _factory(tenant, folder))
    if tenant.weights is not None:
        _load_weights(tenant, module, folder / tenant.weights)
    requests = example_rows.requests(tenant, folder, _sizes(tenant, seed), seed=seed)
    return LoadedModel(module.eval(), requests)


def _factory(tenant: Tenant, folder: Path) -> Callable[[], Any]:
    place, colon, name = tenant.model.partition(":")
    if not (place and colon and name):
        raise _wrong(
            tenant,
            "model",
            f"must be package.module:factory to run live, got {tenant.model!r:.60}",
        )
    try:
        with _findable(folder):
            module = import_module(place)
    except ModuleNotFoundError as error:
        raise _wrong(
            tenant,
            "model",
            f"{tenant.model}: there is no module {error.name}; it is looked for "
            "beside the workload file and on Python's path",
        ) from error
    except Exception as error:
        raise ModelError(tenant.name, error) from error
    factory: Callable[[], Any] | None = getattr(module, name, None)
    if not callable(factory):
        raise _wrong(tenant, "model", f"{tenant.model}: {place} has no function {name}")
    return factory


@contextmanager
def tried(tenant: Tenant) -> Iterator[None]:
    """Around what runs a tenant's own example: says where its values can be declared.

    Raises WorkloadError where the model raises and has whole numbers, or rows of a file.
    """
    try:
        yield
    except ModelError as error:
        for place, spec in enumerate(tenant.example_inputs):
            if "INT" in spec.datatype or spec.file is not None:
                raise _wrong(
                    tenant,
                    f"example_inputs[{place}]",
                    f"the model raised {type(error.cause).__name__} for its own example, of "
                    f"{_values(spec)}: {error.reason:.200}; say which it takes by range: "
                    "[low, high], or give a file of inputs",
                ) from error
        raise


def _values(spec: InputSpec) -> str:
    if spec.file is not None:
        return f"the rows of {spec.file}"
    return "values 0 and 1" if spec.range is None else "values {} to {}".format(*spec.range)


@contextmanager
def _findable(folder: Path) -> Iterator[None]:
    """Modules beside the workload file are found, after all others."""
    place = str(folder.resolve())
    sys.path.append(place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _made(tenant: Tenant, factory: Callable[[], Any]) -> nn.Module:
    try:
        module = factory()
    except Exception as error:
        raise ModelError(tenant.name, error) from error
    if not isinstance(module, nn.Module):
        raise _wrong(
            tenant,
            "model",
            f"{tenant.model} must return a torch.nn.Module, it returned {type(module).__name__}",
        )
    return module


def _sizes(tenant: Tenant, seed: int) -> list[int | None]:
    """How many inputs each request holds: drawn from the tenant's mix, or as its shapes say."""
    if not tenant.batch_mix:
        return [None] * REQUESTS
    sizes, weights = zip(*tenant.batch_mix, strict=True)
    return [*random.Random(seed).choices(sizes, weights, k=MIXED_REQUESTS)]


def _load_weights(tenant: Tenant, module: nn.Module, path: Path) -> None:
    try:
        safetensors = import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"tenant {tenant.name}: weights need safetensors: pip install 'spacetime[live]'"
        ) from error
    try:
        state: dict[str, Tensor] = safetensors.load_file(path)
    except OSError as error:
        raise _wrong(tenant, "weights", f"{path}: {error.strerror or 'cannot be read'}") from error
    except Exception as error:  # its own error class, for whatever is no such file
        raise _wrong(tenant, "weights", f"{path}: is no safetensors file: {error}") from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise _wrong(tenant, "weights", f"{path}: does not fit {tenant.model}: {reason}") from error


def _wrong(tenant: Tenant, field: str, problem: str) -> WorkloadError:
    return WorkloadError(f"tenant {tenant.name}: {field}", problem)
