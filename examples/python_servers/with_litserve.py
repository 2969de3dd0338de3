"""LitServe with many models in one worker: python with_litserve.py

What changes from calling the model in predict() ends in `# +`. LitServe's own batching stays off:
requests of all models that wait together share launches.
"""

from typing import Any

import litserve as ls
import torch
from models import EXAMPLE, NAMES, model

import spacetime as st  # +


class Models(ls.LitAPI):
    """POST /predict {"model": name, "rows": [[...]]}."""

    def setup(self, device: str) -> None:
        """One session a worker; it ends with the worker."""
        self.session = st.Session("cpu")  # +
        self.tenants = {
            name: self.session.add(model(name), example_inputs=(EXAMPLE,), slo_ms=2000)  # +
            for name in NAMES
        }

    async def decode_request(self, request: dict[str, Any]) -> tuple[str, torch.Tensor]:
        return request["model"], torch.tensor(request["rows"])

    async def predict(self, asked: tuple[str, torch.Tensor]) -> torch.Tensor:  # + async
        name, rows = asked
        answer: torch.Tensor = await self.tenants[name].infer(rows)  # + was: models[name](rows)
        return answer

    async def encode_response(self, answer: torch.Tensor) -> dict[str, Any]:
        return {"rows": answer.tolist()}


def server() -> ls.LitServer:
    """The server, not started."""
    return ls.LitServer(Models(enable_async=True), accelerator="cpu")  # + enable_async


if __name__ == "__main__":
    server().run(port=8000, generate_client_file=False)
