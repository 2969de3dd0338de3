"""FastAPI with many models on one device: uvicorn with_fastapi:app

What changes from calling the model in the handler ends in `# +`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI, HTTPException
from models import EXAMPLE, NAMES, model

import spacetime as st  # +

tenants: dict[str, st.Tenant] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Opens the device for as long as the server runs; what was accepted is answered at its end."""
    with st.Session("cpu") as session:  # +
        for name in NAMES:
            tenants[name] = session.add(model(name), example_inputs=(EXAMPLE,), slo_ms=2000)  # +
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict/{name}")
async def predict(name: str, rows: list[list[float]]) -> list[list[float]]:
    """The answers of one model; requests of all models that wait together share launches."""
    if name not in tenants:
        raise HTTPException(404, f"no model {name}")
    try:  # +
        answer = await tenants[name].infer(torch.tensor(rows))  # + was: models[name](...)
    except st.InvalidInput as error:  # +
        raise HTTPException(422, str(error)) from error  # +
    except (st.QueueFull, st.DeadlineExceeded) as error:  # +
        raise HTTPException(503, str(error)) from error  # +
    return answer.tolist()
