"""Whatever a session is told in the wrong type or size: one line that names the option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from models import X, mlp
from torch import Tensor, nn

import spacetime as st
from spacetime.devices.device import open_device
from spacetime.session.layout import FreeLayout

NUMBERS = ["slo_ms", "rate_rps", "weight", "memory_limit_mib"]
NO_NUMBERS = ["50", float("nan"), float("inf"), -1, 0, True, 1e300, [5], Decimal(5), 1 + 2j, 2**70]
NO_WHOLES = ["50", None, float("nan"), 1.5, True, [5], 2**70, torch.tensor(5)]


@pytest.fixture(scope="module")
def session() -> Iterator[st.Session]:
    with st.Session("cpu", lanes=1) as opened:
        yield opened


def refused(field: str, call: Any) -> None:
    with pytest.raises(st.InvalidInput, match=rf"(^|: ){re.escape(field)} must be ") as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.field == field


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("field", NUMBERS)
def test_an_option_that_is_no_positive_number(session: st.Session, field: str, value: Any) -> None:
    if (field, value) == ("rate_rps", 0) and not isinstance(value, bool):
        return  # a tenant that is deployed and idle
    refused(field, lambda: session.add(mlp(0), example_inputs=(X,), **{field: value}))


@pytest.mark.parametrize("value", NO_WHOLES, ids=repr)
@pytest.mark.parametrize("field", ["queue_limit", "priority"])
def test_an_option_that_is_no_whole_number(session: st.Session, field: str, value: Any) -> None:
    refused(field, lambda: session.add(mlp(0), example_inputs=(X,), **{field: value}))


def test_numbers_of_numpy_are_numbers(session: st.Session) -> None:
    tenant = session.add(
        mlp(0),
        example_inputs=(X,),
        slo_ms=np.float32(5000),
        priority=np.int64(2),
        queue_limit=np.int32(7),
        rate_rps=np.float64(3),
        weight=np.int8(2),
    )
    assert type(tenant.slo_ms) is float
    assert tenant(X, priority=np.int16(1), deadline_ms=np.float32(9000)).shape == (1, 3)


@pytest.mark.parametrize("name", ["", " ", "\n", "a\nb", "a\x00", 3, b"x", ["a"]], ids=repr)
def test_a_name_is_a_line_of_text(session: st.Session, name: Any) -> None:
    refused("name", lambda: session.add(mlp(0), example_inputs=(X,), name=name))


@pytest.mark.parametrize(
    "given", [X, None, (t for t in [X]), {"x": X}, np.zeros((1, 6)), "x", {1}], ids=type
)
def test_examples_are_a_tuple(session: st.Session, given: Any) -> None:
    refused("example_inputs", lambda: session.add(mlp(0), example_inputs=given))


@pytest.mark.parametrize("given", [[1], "x", {3: X}, 5], ids=repr)
def test_keywords_of_the_example_are_a_dict(session: st.Session, given: Any) -> None:
    refused(
        "example_kwargs", lambda: session.add(mlp(0), example_inputs=(X,), example_kwargs=given)
    )


class Masked(nn.Module):
    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return x * mask


def test_a_keyword_that_no_call_takes_is_named(session: st.Session) -> None:
    tenant = session.add(Masked().eval(), example_inputs=(X,), example_kwargs={"mask": X})
    refused("timeout", lambda: tenant(X, mask=X, timeout=5))
    refused("mask", lambda: tenant(X))
    with pytest.raises(st.InvalidInput, match=r"its example \(mask\), deadline_ms and priority"):
        tenant(X, masks=X)
    for value in ("5", True, 0, -1, float("nan"), 1e300):
        refused("deadline_ms", lambda value=value: tenant(X, mask=X, deadline_ms=value))
    for value in ("1", 1.5, 2**40):
        refused("priority", lambda value=value: tenant(X, mask=X, priority=value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("device", v) for v in (3, None, torch.device("cpu"), ["cpu"])),
        *(("policy", v) for v in (3, None, "fastest", ["space-time"])),
        *(("lanes", v) for v in (1.5, "2", True, [1, 2], [[0.5]], [["0"]], {})),
        *(("sizes", v) for v in (1, "1", [1.5], ["1"], [True], [])),
        *(("priorities", v) for v in (1, "1", [1.5], [7], [0, 0, 0])),
        *(("max_batch", v) for v in (0, 257, 1.5, "16", True, None)),
        *(("isolation", v) for v in (None, "proc", 3)),
    ],
    ids=repr,
)
def test_an_option_of_the_session(field: str, value: Any) -> None:
    options = {"device": "cpu", "lanes": 1} | {field: value}
    if field == "sizes":
        del options["lanes"]
    refused(field, lambda: st.Session(**options))


def test_a_session_without_lanes_takes_no_tenant() -> None:
    with st.Session("cpu", lanes=[]) as session:
        refused("lanes", lambda: session.add(mlp(0), example_inputs=(X,)))


@pytest.mark.parametrize("value", [3, "plan", [0]], ids=str)
def test_what_is_no_layout_is_refused(value: Any) -> None:
    refused("layout", lambda: st.Session("cpu", layout=value))


@pytest.mark.parametrize("option", [{"lanes": 1}, {"sizes": [1]}, {"priorities": [0]}], ids=str)
def test_an_option_that_a_layout_stands_in_for_is_refused(option: dict[str, Any]) -> None:
    opened = open_device("cpu")
    none = dict.fromkeys(("lanes", "sizes", "priorities"))
    layout = FreeLayout(opened, **none, max_batch=4, one=True)
    refused(next(iter(option)), lambda: st.Session(opened, layout=layout, **option))
    with st.Session(opened, layout=layout) as session:
        assert len(session.partitions) == 1
        assert session.add(mlp(0), example_inputs=(X,))(X).shape == (1, 3)
