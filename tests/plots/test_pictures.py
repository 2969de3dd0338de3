"""Pictures: what the eye needs is there, and nothing that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spacetime.plots import compare, verify
from spacetime.plots.axes import plain_ticks


def test_no_two_of_twenty_planners_look_alike() -> None:
    looks = {(look["facecolor"], look["hatch"]) for look in map(compare._look, range(20))}
    assert len(looks) == 20


def verdict(planner: str, refused: str | None) -> dict[str, Any]:
    return {
        "scenario": "S1", "planner": planner, "refused": refused, "lower_bound_gpus": 1,
        "gpus": None if refused else 3, "worst_attainment": None if refused else 0.9995,
        "keeps": refused is None,
    }  # fmt: skip


def test_a_planner_that_refused_is_named_but_has_no_colour(tmp_path: Path) -> None:
    rows = [verdict("one", None), verdict("two", "tenant a: no room")]
    figure = Figure()
    compare._legend(figure, ["one"], rows)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one"]
    assert figure.get_supxlabel() == "refused every scenario: two"
    record = {"rows": rows, "demanded_attainment": 0.99}
    compare.draw_compare(record, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 1000


def test_both_directions_of_a_pair_are_told_the_worst_first() -> None:
    rows = [
        {"on": 0, "by": 1, "held_frac": 0.98, "p99_inflation": 1.1},
        {"on": 1, "by": 0, "held_frac": 0.51, "p99_inflation": 3.25},
    ]
    assert verify._held(rows) == ["1 beside 0: 51 %", "0 beside 1: 98 %"]
    assert verify._inflation(rows) == ["1 beside 0: ×3.25", "0 beside 1: ×1.10"]


def test_ticks_within_a_decade_are_plain_numbers() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(2.5, 9.5)
    plain_ticks(axes.xaxis)
    figure.canvas.draw()
    told = [label.get_text() for label in axes.get_xticklabels(which="both") if label.get_text()]
    assert len(told) == len(set(told)) >= 2
    assert all(float(text) > 0 for text in told)  # no powers of ten
