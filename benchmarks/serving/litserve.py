"""The compared model in a LitServe server: python -m spacetime.benchmarks.serving.litserve PORT"""

from __future__ import annotations

import sys
import time

import litserve as ls
import numpy as np

from spacetime.benchmarks.serving.toy import BATCH_S, LARGEST_BATCH


class Toy(ls.LitAPI):  # type: ignore[misc]  # litserve has no types
    """BATCH_S a batch; rows in, rows plus 1 out."""

    def setup(self, device: str) -> None:
        """Prepares nothing."""

    def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
        """Returns the row of a request."""
        return np.asarray(request["input"], np.float32)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Computes all rows at once."""
        time.sleep(BATCH_S)
        return batch + 1

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """Returns the row as JSON has it."""
        return {"output": output.tolist()}


def main() -> None:
    """Serves until it is terminated."""
    api = Toy(max_batch_size=LARGEST_BATCH, batch_timeout=0.0005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False
    )


if __name__ == "__main__":
    main()
