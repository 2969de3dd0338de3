"""Schemathesis against our description of the protocol, and the official one where there is it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from conformance import READINGS, as_written, findings
from hypothesis import HealthCheck, given, settings
from serving import serving, tenant
from test_http import ONE

from spacetime.server.http.openapi import description
from spacetime.server.serve import Server

FUZZ = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


def test_schemathesis_finds_nothing() -> None:
    schema = schemathesis.openapi.from_dict(description())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 31
    with serving(tenant("affine")) as own:
        for operation in operations:
            _fuzz(operation, own)


def _fuzz(operation: Any, own: Server) -> None:
    @given(case=operation.as_strategy())
    @FUZZ
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
