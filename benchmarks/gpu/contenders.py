"""The ways to run whole models of R tenants, one request each: PyTorch's, and a session's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spacetime import Session, Tenant
from spacetime.benchmarks.gpu.names import (
    BOUND,
    BRANCHES,
    COMPILED,
    LOOP,
    SERIAL,
    STREAMS,
    VMAP,
)
from spacetime.benchmarks.gpu.rig import DeviceRig, Launch
from spacetime.demo.zoo.exhibits import ZooModel, load
from spacetime.errors import UnsupportedError
from spacetime.models.cuda.family import CudaFamily
from spacetime.session.layout import FreeLayout

RESNET_50, TINY = "resnet-50", "tiny"
SIDE = 224  # pixels of its images


class Logits(nn.Module):
    """A classifier of `transformers` that answers with a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[N, 3, H, W]` to `[N, classes]`."""
        logits: Tensor = self.model(x).logits
        return logits


def first_of(kind: str, seed: int) -> ZooModel:
    """Returns ResNet-50 or a tiny network, with drawn weights, or the zoo's model of that kind."""
    if kind == TINY:
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
        return ZooModel(kind, nn.Sequential(*layers).eval(), torch.randn(4, 3, 8, 8))
    if kind != RESNET_50:
        return next(iter(load(kind, 1, seed=seed)))
    from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415

    torch.manual_seed(seed)
    model = Logits(ResNetForImageClassification(ResNetConfig(num_labels=1000))).eval()
    return ZooModel(kind, model, torch.randn(8, 3, SIDE, SIDE))


def tenants_of(kind: str, count: int, dtype: torch.dtype, seed: int) -> tuple[list[Any], Tensor]:
    """Returns `count` models with own weights, and a request `[1, ...]` of each, on the CPU."""
    first = first_of(kind, seed)
    draw = torch.Generator().manual_seed(seed)
    models = []
    for _ in range(count):
        model = copy.deepcopy(first.model)
        for parameter in model.parameters():
            parameter.data.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=draw))
        models.append(model.to(dtype).eval())
    rows = [i % len(first.pool) for i in range(count)]
    return models, first.pool[rows].to(dtype)


def rivals(
    models: Sequence[nn.Module], x: Tensor, rig: DeviceRig, *, compiled: bool
) -> Iterator[tuple[str, Callable[[], Launch]]]:
    """Yields every way but ours: its name, and what prepares it, of models on the rig's device."""
    single = [partial(model, x[i : i + 1]) for i, model in enumerate(models)]

    def loop() -> list[Any]:
        return [launch() for launch in single]

    yield LOOP, lambda: loop
    yield SERIAL, lambda: rig.captured(loop)
    yield STREAMS, lambda: rig.forked(single)
    yield BRANCHES, lambda: rig.captured(rig.forked(single))
    yield BOUND, lambda: rig.captured(partial(models[0], x))
    yield VMAP, lambda: rig.captured(_mapped(models, x))
    if compiled:
        yield COMPILED, lambda: rig.captured(_compiled(models, x))


def _mapped(models: Sequence[nn.Module], x: Tensor) -> Launch:
    """Returns PyTorch's own ensembling: vmap over stacked weights."""
    functional: Any = torch.func
    parameters, buffers = functional.stack_module_state([*models])
    plain = copy.deepcopy(models[0]).to("meta")

    def call(parameters: Any, buffers: Any, x: Tensor) -> Any:
        return functional.functional_call(plain, (parameters, buffers), (x,))

    mapped = functional.vmap(call)
    return lambda: mapped(parameters, buffers, x[:, None])


def _compiled(models: Sequence[nn.Module], x: Tensor) -> Launch:
    """Returns a loop of one program that is compiled once, since weights are its arguments."""
    functional: Any = torch.func
    states = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]

    def call(state: Any, x: Tensor) -> Any:
        return functional.functional_call(models[0], state, (x,))

    compiled: Any = torch.compile(call)
    return lambda: [compiled(state, x[i : i + 1]) for i, state in enumerate(states)]


def _captured(tenant: Tenant) -> CudaFamily:
    family = tenant.family
    if not isinstance(family, CudaFamily) or not family.captured:
        raise UnsupportedError(f"a launch to time: the session runs the model {family.how()}")
    return family


class Ours:
    """A session on the whole device; its family's graph for all tenants, and the session itself.

    A server as `loads` asks it. close() ends it.
    """

    def __init__(
        self, device: str, models: Sequence[nn.Module], x: Tensor, *, one_bucket: bool = False
    ) -> None:
        one_launch = 1 << (len(models) - 1).bit_length()  # buckets are powers of two
        self.session = Session(device, lanes=1, max_batch=one_launch)
        if one_bucket:  # where a minute is all there is: fewer launches are padded to it
            assert isinstance(self.session.layout, FreeLayout)
            self.session.layout.buckets = [one_launch]
        try:
            self.tenants = [self.session.add(m, example_inputs=(x[:1],)) for m in models]
            family = self._family = _captured(self.tenants[0])
            rows = [x[i : i + 1].contiguous() for i in range(len(models))]
            prepared = [
                family.payload(tenant.member, [row], 1)
                for tenant, row in zip(self.tenants, rows, strict=True)
            ]
        except BaseException:
            self.session.close()
            raise
        self._kept = rows
        self._payloads = [payload for payload, _, _ in prepared]
        self._answers = [outputs[0] for _, outputs, _ in prepared]

    @property
    def fused(self) -> bool:
        """Whether all tenants are of one family."""
        return all(tenant.family is self._family for tenant in self.tenants)

    def launch_us(self) -> tuple[float, float]:
        """Launches all tenants once; returns the us of the host with copies, and of the graph."""
        wall, device = self._family.runners[0].time(self._payloads)
        return wall / 1e3, device / 1e3

    def launched(self) -> list[Tensor]:
        """Returns the answers of one launch of all tenants."""
        self._family.runners[0].time(self._payloads)
        return self._answers

    def submit(self, tenant: int, x: Tensor) -> Future[Tensor]:
        """Returns a future of the tenant's answer."""
        future: Future[Tensor] = self.tenants[tenant].submit(x)
        return future

    def close(self) -> None:
        """Ends the session."""
        self.session.close()
