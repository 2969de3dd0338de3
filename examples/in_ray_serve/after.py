"""Four models behind Ray Serve, tenants of one session: python -m in_ray_serve.after 8000"""

import signal
import sys
from contextlib import suppress

import ray
import torch
from four_models import EXAMPLE, TENANTS, model, picture
from ray import serve
from starlette.requests import Request

import spacetime as st


@serve.deployment(max_ongoing_requests=100)
class Models:
    def __init__(self) -> None:
        session = st.Session("cpu")
        self.models = [session.add(model(n), example_inputs=(EXAMPLE,)) for n in range(TENANTS)]

    async def predict(self, question: tuple[int, torch.Tensor]) -> torch.Tensor:
        tenant, x = question
        return await self.models[tenant].infer(x)

    async def __call__(self, request: Request) -> list[float]:
        question = await request.json()
        scores = await self.predict((question["tenant"], picture(question["pixels"])))
        return scores[0].tolist()


if __name__ == "__main__":
    ray.init("local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the cluster ends, too
    with suppress(KeyboardInterrupt):
        serve.run(Models.bind(), blocking=True)
