"""A LitServe server that does nothing, with its dynamic batching.

python -m spacetime.benchmarks.dispatch.litserve_noop PORT
"""

from __future__ import annotations

import sys

import litserve as ls

from spacetime.benchmarks.dispatch.ways import LARGEST_BATCH


class Noop(ls.LitAPI):  # type: ignore[misc]  # litserve has no types
    """Answers every request with itself."""

    def setup(self, device: str) -> None:
        """Prepares nothing."""

    def predict(self, batch: list[object]) -> list[object]:
        """Returns the batch as it is."""
        return batch


def main() -> None:
    """Serves until it is terminated."""
    server = ls.LitServer(
        Noop(max_batch_size=LARGEST_BATCH, batch_timeout=0.0),
        accelerator="cpu",
        workers_per_device=1,
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False
    )


if __name__ == "__main__":
    main()
