"""Four models behind FastAPI, each with a batcher of its own: python -m in_fastapi.before 8000"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from batching import Batcher
from fastapi import FastAPI
from four_models import LARGEST_BATCH, PIXELS, TENANTS, model, picture
from pydantic import BaseModel, Field

tenants: list[Batcher] = []


class Question(BaseModel):
    tenant: Annotated[int, Field(ge=0, lt=TENANTS)]
    pixels: Annotated[list[float], Field(min_length=PIXELS, max_length=PIXELS)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    tenants.extend(Batcher(model(n), LARGEST_BATCH) for n in range(TENANTS))
    yield
    for tenant in tenants:
        tenant.close()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(question: Question) -> list[float]:
    scores = await tenants[question.tenant].infer(picture(question.pixels))
    return scores[0].tolist()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
