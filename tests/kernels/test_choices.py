"""Tile configurations by name, and the file that remembers which was fastest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: its choices are not checked")

from spacetime.kernels.triton.cache import StoredChoices, cache_folder, choices_of
from spacetime.kernels.triton.configs import Config, named


def test_a_config_is_found_by_its_name() -> None:
    config = Config(64, 128, 32, 8, 3, 2, 4)
    assert config.name == "64x128x32 w8 s3 p2 k4"
    assert named(config.name) == config
    with pytest.raises(ValueError, match="is not like"):
        named("64x64")


def test_a_choice_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    first, second = (choices_of("NVIDIA H200", "580.1", tmp_path / "new") for _ in range(2))
    first.put("conv", "a")
    second.put("linear", "b")  # opened before the first had written
    third = choices_of("NVIDIA H200", "580.1", tmp_path / "new")
    assert (third.get("conv"), third.get("linear"), third.get("other")) == ("a", "b", None)
    assert choices_of("NVIDIA H200", "590.2", tmp_path / "new").get("conv") is None
    assert [p.name for p in (tmp_path / "new").iterdir()] == [first.path.name]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "spacetime.choices/1"}', "\0\xff"]
)
def test_a_spoilt_file_is_ignored_aloud_and_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "choices.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.warns(UserWarning, match="ignored, measured anew"):
        choices = StoredChoices(path)
    assert choices.get("conv") is None
    with pytest.warns(UserWarning, match="ignored"):
        choices.put("conv", "a")
    assert json.loads(path.read_text())["chosen"] == {"conv": "a"}


def test_a_folder_that_cannot_be_written_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="ignored"):
        choices = StoredChoices(tmp_path / "file" / "choices.json")
    with pytest.warns(UserWarning, match="not written"):
        choices.put("conv", "a")
    assert choices.get("conv") == "a"


def test_the_cache_lies_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "spacetime"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "spacetime"
