"""The model that servers are compared with: 2 ms a batch, whatever the batch; and our server of it.

python -m spacetime.benchmarks.serving_toy  prints the HTTP port once it answers.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

BATCH_S = 0.002
LARGEST_BATCH = 16
WIDTH = 16


@torch.library.custom_op("spacetime_bench::pause", mutates_args=())
def pause(x: Tensor) -> Tensor:
    """x + 1 after BATCH_S; an operator, so that exporting the model does not lose the wait."""
    time.sleep(BATCH_S)
    return x + 1


@pause.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Pause(nn.Module):
    """Rows [n, WIDTH] in, the same plus 1 out."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = pause(x)
        return out


def toy() -> nn.Module:
    """What a workload names."""
    return Pause()


def main() -> None:
    """Serves on one lane, as the others have one instance, until SIGTERM."""
    # What needs the extra `serve` is not needed to import this module.
    from spacetime.server.repository import Repository  # noqa: PLC0415
    from spacetime.server.serve import Options, Server, serve  # noqa: PLC0415
    from spacetime.session import Session  # noqa: PLC0415
    from spacetime.workload import InputSpec, Tenant, Workload  # noqa: PLC0415

    model = f"{toy.__module__ if __name__ != '__main__' else __spec__.name}:toy"
    spec = InputSpec((1, WIDTH), "FP32")
    tenant = Tenant(name="toy", model=model, slo_ms=1000, rate_rps=1000, example_inputs=(spec,))
    with Session("cpu", lanes=1, max_batch=LARGEST_BATCH) as session:
        repository = Repository(session, Workload((tenant,)), Path())
        repository.load_all()
        server = Server(repository, Options(http_port=0, grpc_port=0, metrics_port=0))
        serve(server, lambda: print(server.http_port, flush=True))


if __name__ == "__main__":
    main()
