"""One tenant of `bench goodput` in Triton's Python backend: its batcher's rows as one batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb

from spacetime.benchmarks.goodput.models import TenantProgram


class TritonPythonModel:
    """The model that Triton's Python backend looks for, by this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the program that the model's configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._model = TenantProgram(Path(parameters["script"]["string_value"]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Returns a response for each request, in order."""
        rows = [
            torch.from_numpy(pb.get_input_tensor_by_name(request, "input_0").as_numpy())
            for request in requests
        ]
        scores = torch.split(self._model(torch.cat(rows)), [len(row) for row in rows])
        return [pb.InferenceResponse([pb.Tensor("output_0", row.numpy())]) for row in scores]
