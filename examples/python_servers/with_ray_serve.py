"""Ray Serve with many models in one replica: serve run with_ray_serve:app

What changes from calling the model in the method ends in `# +`. @serve.batch is not needed:
requests of all models that wait together share launches.
"""

from __future__ import annotations

import torch
from models import EXAMPLE, NAMES, model
from ray import serve

import spacetime as st  # +


@serve.deployment(max_ongoing_requests=64)  # + more at once than one replica could run alone
class Models:
    """handle.predict.remote(name, rows)."""

    def __init__(self) -> None:
        self.session = st.Session("cpu")  # +
        self.tenants = {
            name: self.session.add(model(name), example_inputs=(EXAMPLE,), slo_ms=2000)  # +
            for name in NAMES
        }

    async def predict(self, name: str, rows: list[list[float]]) -> list[list[float]]:  # + async
        """The answers of one model."""
        answer = await self.tenants[name].infer(torch.tensor(rows))  # + was: models[name](...)
        return answer.tolist()

    def __del__(self) -> None:
        self.session.close()  # + what was accepted is answered


app = Models.bind()
