"""Four models behind LitServe, tenants of one session: python -m in_litserve.after 8000"""

import signal
import sys

import litserve as ls
import torch
from four_models import CORES, EXAMPLE, TENANTS, model, picture

import spacetime as st


class Models(ls.LitAPI):
    def setup(self, device: str) -> None:
        session = st.Session("cpu")
        self.models = [session.add(model(n), example_inputs=(EXAMPLE,)) for n in range(TENANTS)]

    async def decode_request(self, request: dict) -> tuple[int, torch.Tensor]:
        return request["tenant"], picture(request["pixels"])

    async def predict(self, question: tuple[int, torch.Tensor]) -> torch.Tensor:
        tenant, x = question
        return await self.models[tenant].infer(x)

    async def encode_response(self, output: torch.Tensor) -> list[float]:
        return output[0].tolist()


if __name__ == "__main__":
    api = Models(enable_async=True)
    server = ls.LitServer(api, accelerator="cpu")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else workers outlive it
    port = int(sys.argv[1])
    server.run("127.0.0.1", port, num_api_servers=CORES, generate_client_file=False)
