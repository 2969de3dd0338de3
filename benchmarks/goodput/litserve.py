"""The tenants of `bench goodput` in LitServe: python -m ... PORT FOLDER WAIT_S NAME...

One API for all tenants, a worker a core, and batches computed tenant by tenant: of the forms tried
(an API and a worker for each tenant, either queue) the one that takes the least processor time for
an answer. A request is a byte that says which tenant, then the picture's bytes; the answer is the
scores' bytes.
"""

import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated

import litserve as ls
import numpy as np
import torch
from fastapi import Body, Response
from torch import Tensor

from spacetime.benchmarks.driving.servers import cores
from spacetime.benchmarks.goodput.models import LARGEST_BATCH, SHAPE, TenantProgram, script_path

Question = tuple[int, Tensor]


class Models(ls.LitAPI):  # type: ignore[misc]  # litserve has no types
    """All tenants in each worker. The batcher waits a millisecond: told not to wait, it spins."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(max_batch_size=LARGEST_BATCH, batch_timeout=0.001)
        self._paths = paths

    def setup(self, device: str) -> None:
        """Reads the programs."""
        self._models = [TenantProgram(path) for path in self._paths]

    # Annotations that FastAPI reads: the body as it came.
    def decode_request(self, request: Annotated[bytes, Body()]) -> Question:
        """Returns the tenant, and the picture `[1, 3, 64, 64]`."""
        pixels = np.frombuffer(request, np.float32, offset=1).reshape(1, *SHAPE)
        return request[0], torch.from_numpy(pixels)

    def batch(self, inputs: list[Question]) -> list[Question]:
        """Returns the questions as they are, since their tenants differ."""
        return inputs

    def predict(self, batch: list[Question]) -> list[Tensor]:
        """Returns scores in the order of the questions, with one launch a tenant."""
        answers: list[Tensor] = [torch.empty(0)] * len(batch)
        order = sorted(range(len(batch)), key=lambda place: batch[place][0])
        for tenant, group in groupby(order, key=lambda place: batch[place][0]):
            places = [*group]
            scores = self._models[tenant](torch.cat([batch[place][1] for place in places]))
            for place, row in zip(places, scores, strict=True):
                answers[place] = row
        return answers

    def unbatch(self, output: list[Tensor]) -> list[Tensor]:
        """Returns the scores as they are."""
        return output

    def encode_response(self, output: Tensor) -> Response:
        """Returns the scores' bytes."""
        return Response(output.numpy().tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serves until it is terminated."""
    port, folder, wait_s, *names = sys.argv[1:]
    api = Models([script_path(Path(folder), name) for name in names])
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=cores(), timeout=float(wait_s))
    server.run(host="127.0.0.1", port=int(port), log_level="critical", generate_client_file=False)


if __name__ == "__main__":
    main()
