"""Four models behind FastAPI, tenants of one session: python -m in_fastapi.after 8000"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from four_models import EXAMPLE, PIXELS, TENANTS, model, picture
from pydantic import BaseModel, Field

import spacetime as st

tenants: list[st.Tenant] = []
STATUS = {st.InvalidInput: 422, st.QueueFull: 503, st.DeadlineExceeded: 504}


class Question(BaseModel):
    tenant: Annotated[int, Field(ge=0, lt=TENANTS)]
    pixels: Annotated[list[float], Field(min_length=PIXELS, max_length=PIXELS)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with st.Session("cpu") as session:
        tenants.extend(session.add(model(n), example_inputs=(EXAMPLE,)) for n in range(TENANTS))
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(st.SpacetimeError)
async def refused(_: object, error: st.SpacetimeError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, STATUS.get(type(error), 500))


@app.post("/predict")
async def predict(question: Question) -> list[float]:
    scores = await tenants[question.tenant].infer(picture(question.pixels))
    return scores[0].tolist()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
