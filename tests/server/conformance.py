"""Schemathesis against the protocol's official description, of which the repository has no copy.

python tests/server/conformance.py open_inference_rest.yaml [--triton FOLDER]

prints what it finds at our server, and at Triton's from the unpacked wheel nvidia-pytriton. The
text: specification/protocol/open_inference_rest.yaml of kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import yaml

Text = dict[str, Any]
Finding = tuple[str, str]  # the check that failed, the operation
_INFER = "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/infer"
# No OpenAPI text can say which tensors a model takes: one that it allows may be wrong all the same.
_NAMED_BY_THE_MODEL = ("--exclude-checks", "positive_data_acceptance")


def as_written(spec: Path, model: str, body: Any) -> Text:
    """The text itself; the $ before the braces of its paths would be part of the path."""
    text: Text = yaml.safe_load(spec.read_text(encoding="utf-8").replace("${", "{"))
    return text


def unknown_documented(spec: Path, model: str, body: Any) -> Text:
    """With an answer for models that are not there.

    The text defines metadata_model_error_response, but no status that answers with it.
    """
    text = as_written(spec, model, body)
    schema = {"$ref": "#/components/schemas/metadata_model_error_response"}
    unknown = {"description": "unknown", "content": {"application/json": {"schema": schema}}}
    for path, item in text["paths"].items():
        for method in {"get", "post"} & item.keys() if "MODEL_NAME" in path else ():
            item[method]["responses"]["404"] = unknown
    return text


def real_model(spec: Path, model: str, body: Any) -> Text:
    """The same of a model that is there, with a body that is right among the examples."""
    text = unknown_documented(spec, model, body)
    real = {"MODEL_NAME": model, "MODEL_VERSION": "1"}
    for item in text["paths"].values():
        for parameter in item.get("parameters", ()):
            parameter["schema"]["enum"] = [real[parameter["name"]]]
    text["paths"][_INFER]["post"]["requestBody"]["content"]["application/json"]["example"] = body
    return text


READINGS: dict[Callable[[Path, str, Any], Text], tuple[str, ...]] = {
    as_written: (),
    unknown_documented: (),
    real_model: _NAMED_BY_THE_MODEL,
}


def findings(text: Text, url: str, examples: int, *options: str) -> set[Finding]:
    """What all of Schemathesis' checks find with so many examples an operation."""
    with TemporaryDirectory() as folder:
        spec, report = Path(folder, "spec.yaml"), Path(folder, "report.json")
        spec.write_text(yaml.safe_dump(text), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            str(spec),
            "--url",
            url,
            "--max-examples",
            str(examples),
            "--seed",
            "1",
            "--continue-on-failure",
            "--checks",
            "all",
            "--report",
            "json",
            "--report-json-path",
            str(report),
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if not report.exists():
            raise RuntimeError(f"schemathesis ended with {done.returncode}: {done.stdout[-2000:]}")
        found = json.loads(report.read_text(encoding="utf-8"))
    if found["errors"] or not found["test_cases"]["generated"]:
        raise RuntimeError(f"schemathesis tested nothing: {found['errors']}")
    return {(one["type"], at) for one in found["failures"] for at in one["operations"]}


@click.command()
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--triton", "wheel", type=click.Path(exists=True, path_type=Path))
@click.option("--examples", type=click.IntRange(1), default=200, show_default=True)
def main(spec: Path, wheel: Path | None, examples: int) -> None:
    """Counts what every reading of SPEC finds at each server."""
    from spacetime.benchmarks.serving import ways  # noqa: PLC0415  # tests need no benchmarks

    servers = {"spacetime": ways.ours}
    if wheel is not None:
        servers["triton"] = lambda: ways.triton(wheel)
    body = {"inputs": [{"name": "input_0", "shape": [1, 16], "datatype": "FP32", "data": ways.ROW}]}
    for name, server in servers.items():
        with server() as way:
            for reading, options in READINGS.items():
                text = reading(spec, "toy", body)
                found = findings(text, f"http://127.0.0.1:{way.port}", examples, *options)
                print(f"{name}, {reading.__name__}: {len(found)} failures")
                for check, operation in sorted(found):
                    print(f"    {check}: {operation}")


if __name__ == "__main__":
    main()
