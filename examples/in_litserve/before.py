"""Four models behind LitServe and its batching: python -m in_litserve.before 8000"""

import signal
import sys

import litserve as ls
import torch
from batching import grouped
from four_models import CORES, LARGEST_BATCH, TENANTS, model, picture


class Models(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.models = [model(n) for n in range(TENANTS)]

    def decode_request(self, request: dict) -> tuple[int, torch.Tensor]:
        return request["tenant"], picture(request["pixels"])

    def predict(self, batch: list[tuple[int, torch.Tensor]]) -> list[torch.Tensor]:
        return grouped(self.models, batch)

    def encode_response(self, output: torch.Tensor) -> list[float]:
        return output[0].tolist()


if __name__ == "__main__":
    api = Models(max_batch_size=LARGEST_BATCH, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=CORES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else workers outlive it
    port = int(sys.argv[1])
    server.run("127.0.0.1", port, num_api_servers=CORES, generate_client_file=False)
