"""What a server tries its own models with: declared values, or a refusal that says how to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from process import ANY, refused, work_file
from serving import HERE, serving, tenant
from test_http import infer

from spacetime.models.loading import load_model
from spacetime.workload.workload import InputSpec

WORK = (
    'tenants: [{name: t, model: "served_models:table", slo_ms: 5000, rate_rps: 1, '
    "example_inputs: [{shape: [1, 4], datatype: INT64, name: ids%s}]}]\n"
)


def test_a_model_is_tried_with_values_of_its_range() -> None:
    ids = InputSpec((1, 4), "INT64", "ids", range=(40, 49))
    with serving(tenant("table", ids)) as own:
        given = {"name": "ids", "shape": [1, 4], "datatype": "INT64", "data": [40, 49, 41, 42]}
        assert infer(own, "table", given)[0] == 200
        failed = own.repository.session.counters().tenants["table"].failed
        assert failed == 0
    examples = load_model(tenant("table", ids), HERE).requests
    assert len({str(one) for one in examples}) == len(examples)


def test_an_example_that_fails_says_how_to_declare_its_values(tmp_path: Path) -> None:
    for given, values in (("", "0 and 1"), (", range: [40, 99]", "40 to 99")):
        says = refused(work_file(tmp_path, WORK % given), *ANY)
        assert says.startswith(
            "spacetime: tenant t: example_inputs[0]: the model raised IndexError for its own "
            f"example, of values {values}: index out of range in self; say which it takes by range:"
        )


def test_rows_of_a_file_beside_the_workload(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", ids=np.full((1, 4), 99))
    says = refused(work_file(tmp_path, WORK % ", file: rows.npz"), *ANY)
    assert "the model raised IndexError for its own example, of the rows of rows.npz: index" in says
    np.savez(tmp_path / "rows.npz", ids=np.full((1, 4), 45, np.int32))
    says = refused(work_file(tmp_path, WORK % ", file: rows.npz"), *ANY)
    assert "example_inputs[0].file: " in says
    assert says.endswith("rows.npz: must hold INT64 [rows, 4], got int32 [1, 4]\n")
