"""The batching of several models that users of these servers write today: `before.py` needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from torch import Tensor, nn

torch.set_num_threads(1)  # several batches run at once: teams of threads would fight
Question = tuple[int, Tensor]  # tenant, input [1, ...]


def grouped(models: Sequence[nn.Module], batch: Sequence[Question]) -> list[Tensor]:
    """Answers `[1, ...]` to a batch of several tenants' requests: one launch a tenant."""
    answers: dict[int, Tensor] = {}
    with torch.no_grad():
        for tenant in {tenant for tenant, _ in batch}:
            places = [place for place, (of, _) in enumerate(batch) if of == tenant]
            found = models[tenant](torch.cat([batch[place][1] for place in places]))
            answers |= dict(zip(places, found.split(1), strict=True))
    return [answers[place] for place in range(len(batch))]


class Batcher:
    """What FastAPI lacks: takes what waits for one model, up to `largest`, and runs it in a thread.

    It needs a running event loop.
    """

    def __init__(self, model: nn.Module, largest: int) -> None:
        self._model = model
        self._largest = largest
        self._waiting: asyncio.Queue[tuple[Tensor, asyncio.Future[Tensor]]] = asyncio.Queue()
        self._task = asyncio.create_task(self._serve())

    async def infer(self, x: Tensor) -> Tensor:
        """The model's answer `[1, ...]` to x `[1, ...]`."""
        future: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((x, future))
        return await future

    def close(self) -> None:
        """Ends the task."""
        self._task.cancel()

    async def _serve(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._largest and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            questions = [(0, x) for x, _ in batch]
            answers = await asyncio.to_thread(grouped, [self._model], questions)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():  # its client may have gone
                    future.set_result(answer)
