"""The tenants of `bench goodput` in LitServe: python -m ... PORT FOLDER WAIT_S NAME...

An API and a worker for each tenant behind one server, with its fast queue: of the forms tried (one
API for all tenants with a worker a core, either queue) the one that answers most in time beyond its
capacity. A request is the picture's bytes, the answer the scores' bytes.
"""

import sys
from pathlib import Path
from typing import Annotated

import litserve as ls
import numpy as np
import torch
from fastapi import Body, Response
from torch import Tensor

from spacetime.benchmarks.goodput_models import LARGEST_BATCH, SHAPE, Compiled, script_path


class Model(ls.LitAPI):  # type: ignore[misc]  # litserve has no types
    """One tenant. Its batcher waits a millisecond: told not to wait, it spins."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(max_batch_size=LARGEST_BATCH, batch_timeout=0.001, api_path=f"/{name}")
        self._path = script_path(folder, name)

    def setup(self, device: str) -> None:
        """Reads the program."""
        self._model = Compiled(self._path)

    # FastAPI reads the annotation: the body as it came.
    def decode_request(self, request: Annotated[bytes, Body()]) -> Tensor:
        """A picture `[1, 3, 64, 64]`."""
        return torch.from_numpy(np.frombuffer(request, np.float32).reshape(1, *SHAPE))

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """All pictures."""
        return torch.cat(inputs)

    def predict(self, batch: Tensor) -> Tensor:
        """All scores."""
        return self._model(batch)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """Scores by request."""
        return list(output)

    def encode_response(self, output: Tensor) -> Response:
        """The scores' bytes."""
        return Response(output.numpy().tobytes(), media_type="application/octet-stream")


def main() -> None:
    """Serves until it is terminated."""
    port, folder, wait_s, *names = sys.argv[1:]
    models = [Model(Path(folder), name) for name in names]
    server = ls.LitServer(models, accelerator="cpu", timeout=float(wait_s), fast_queue=True)
    server.run(host="127.0.0.1", port=int(port), log_level="critical", generate_client_file=False)


if __name__ == "__main__":
    main()
