"""Four models behind Ray Serve and its batching: python -m in_ray_serve.before 8000"""

import signal
import sys
from contextlib import suppress

import ray
import torch
from batching import grouped
from four_models import CORES, LARGEST_BATCH, TENANTS, model, picture
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=CORES, max_ongoing_requests=100)
class Models:
    def __init__(self) -> None:
        self.models = [model(n) for n in range(TENANTS)]

    @serve.batch(max_batch_size=LARGEST_BATCH, batch_wait_timeout_s=0.002)
    async def predict(self, batch: list[tuple[int, torch.Tensor]]) -> list[torch.Tensor]:
        return grouped(self.models, batch)

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
