"""Schemathesis against our description of the protocol, and the official one where there is it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from conformance import READINGS, as_written, findings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import serving, tenant
from test_http import ONE, ask

from spacetime.server.openapi import description
from spacetime.server.serve import Server

FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def test_schemathesis_finds_nothing() -> None:
    schema = schemathesis.openapi.from_dict(description())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 17
    with serving(tenant("affine")) as own:
        for operation in operations:
            _fuzz(operation, own)


def _fuzz(operation: Any, own: Server) -> None:
    @given(case=operation.as_strategy())
    @settings(FUZZ, max_examples=10)
    def check(case: Any) -> None:
        case.call_and_validate(base_url=f"http://127.0.0.1:{own.http_port}")

    check()


OFFICIAL = os.environ.get("SPACETIME_OIP_OPENAPI")
# The text names no status for a model that is not there; any server's answer is one too many.
_MODEL = "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}"
UNDOCUMENTED = {
    ("UndefinedStatusCode", f"GET {_MODEL}"),
    ("UndefinedStatusCode", f"GET {_MODEL}/ready"),
    ("UndefinedStatusCode", f"POST {_MODEL}/infer"),
}


@pytest.mark.skipif(not OFFICIAL, reason="SPACETIME_OIP_OPENAPI names no open_inference_rest.yaml")
@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.__name__)
def test_schemathesis_finds_nothing_by_the_official_description(
    reading: Any, server: Server
) -> None:
    text = reading(Path(str(OFFICIAL)), "affine", {"inputs": [ONE]})
    url = f"http://127.0.0.1:{server.http_port}"
    expected = UNDOCUMENTED if reading is as_written else set()
    assert findings(text, url, 200, *READINGS[reading]) == expected


@given(body=JSON | st.builds(lambda inputs: {"inputs": inputs}, JSON))
@FUZZ
def test_no_json_makes_a_fault(server: Server, body: Any) -> None:
    text = json.dumps(body, allow_nan=True).encode("utf-8", "replace")
    status, answer, _ = ask(server, "POST", "/v2/models/affine/infer", text)
    assert 400 <= status < 500
    assert isinstance(answer["error"], str)


@given(field=st.sampled_from(sorted(ONE)), value=JSON)
@FUZZ
def test_no_value_of_an_inputs_field_makes_a_fault(server: Server, field: str, value: Any) -> None:
    body = json.dumps({"inputs": [ONE | {field: value}]}).encode()
    assert ask(server, "POST", "/v2/models/affine/infer", body)[0] in {200, 400}


@given(head=st.binary(max_size=60), length=st.integers(-5, 80))
@FUZZ
def test_no_binary_body_makes_a_fault(server: Server, head: bytes, length: int) -> None:
    path = "/v2/models/affine/infer"
    sent = {"Inference_Header_Content_Length": str(length)}
    assert ask(server, "POST", path, head, **sent)[0] == 400
