"""The demo on disk: made once, used again, never in somebody's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import contents

from her2bridge.demo import Demo, make_demo
from her2bridge.errors import UsageError
from her2bridge.qupath.open import open_project
from her2bridge.qupath.server_builder import calibration_of, slide_source
from her2bridge.slides import open_slide

SMALL = (1024, 768)


def test_the_project_shows_the_slide_and_its_regions(small_demo: Demo) -> None:
    project = open_project(small_demo.project, "files")
    (entry,) = project.entries
    source = slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri)
    with open_slide(source) as slide:
        assert slide.size == (small_demo.truth.width, small_demo.truth.height)
        stated = entry.server_json["metadata"]["levels"]
        assert [level["downsample"] for level in stated] == list(slide.levels)
    assert calibration_of(entry.server_json) == (small_demo.truth.mpp, small_demo.truth.mpp)
    drawn = {region.name: region for region in small_demo.truth.regions}
    for annotation in entry.annotations():
        region = drawn.pop(str(annotation.name))
        assert str(annotation.path_class) == region.class_name
        assert annotation.geometry is not None
        assert annotation.geometry.symmetric_difference(region.geometry).area < 1e-3 * region.geometry.area
    assert not drawn


def test_one_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    demo = make_demo(tmp_path, size=SMALL, workers=1)
    before = contents(tmp_path)
    again = make_demo(tmp_path, size=SMALL, workers=1)
    assert contents(tmp_path) == before
    assert (again.project, again.slide) == (demo.project, demo.slide)
    assert json.loads((tmp_path / "slides" / "truth.json").read_bytes())["seed"] == demo.truth.seed


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_bytes(b"years of work")
    with pytest.raises(UsageError, match="not empty") as caught:
        make_demo(tmp_path, size=SMALL, workers=1)
    assert caught.value.where == str(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        make_demo(tmp_path / "file", size=SMALL, workers=1)
