"""A request of the QuPath scripts leaves in a project what ``her2bridge run`` leaves there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import contents
from script_requests import put_request, take_answer
from test_run import reclassify

from her2bridge import events as ev
from her2bridge.demo import Demo
from her2bridge.errors import UsageError
from her2bridge.qupath.open import open_project
from her2bridge.qupath.request import IMAGE, TILES, UPDATE, RequestProject
from her2bridge.qupath.results import RUN
from her2bridge.qupath.seam import Entry, ImageUpdate
from her2bridge.qupath.suspect_labels import suspect_annotation
from her2bridge.records import TileClass
from her2bridge.run import run_project, score_project
from her2bridge.scoring import ScoreSettings
from her2bridge.settings import RunSettings

CPU = RunSettings(
    device="cpu", runtime="torch", precision="fp32", scores=ScoreSettings(min_tumour_tiles=5, min_tumour_mm2=0.0)
)


def as_seen(entry: Entry) -> dict[str, Any]:
    """All that a run leaves, ids and times aside."""
    metadata = dict(entry.metadata)
    _, _, rest = metadata.pop(RUN).split(" | ", 2)
    objects = [
        (one.kind, one.parent_id, str(one.path_class), dict(one.measurements), one.geometry and one.geometry.wkt)
        for one in entry.objects()
    ]
    return {"metadata": metadata, "run": rest, "objects": sorted(objects, key=str)}


def test_the_answer_is_what_a_run_writes(demo: Demo, tmp_path: Path) -> None:
    twin = shutil.copytree(demo.project.parent, tmp_path / "twin") / demo.project.name
    run_project(demo.project, CPU)
    heard: list[ev.Event] = []
    project = open_project(twin, "files")
    request = RequestProject(put_request(project, tmp_path / "request"))
    score_project(request, CPU, heard.append)
    take_answer(tmp_path / "request", project)
    assert as_seen(open_project(twin, "files").entries[0]) == as_seen(open_project(demo.project, "files").entries[0])
    (scored,) = [event for event in heard if isinstance(event, ev.ImageScored)]
    update = json.loads((tmp_path / "request" / UPDATE).read_text(encoding="utf-8"))
    assert update["metadata"] == scored.metadata
    assert not (tmp_path / "request" / "her2bridge").exists()  # results beside a folder that is thrown away
    assert [one["name"] for one in update["path_classes"]] == ["Negative", "1+", "2+", "3+", "Normal", "Noise*"]


def test_a_second_request_replaces_the_tiles_of_the_first(demo: Demo, tmp_path: Path) -> None:
    run_project(demo.project, CPU)
    project = open_project(demo.project, "files")
    before = project.entries[0].stored_tiles()
    request = RequestProject(put_request(project, tmp_path / "request"))
    score_project(request, replace(CPU, force=True), lambda event: None)
    take_answer(tmp_path / "request", project)
    after = open_project(demo.project, "files").entries[0].stored_tiles()
    assert len(after) == len(before)
    assert not set(after.ids) & set(before.ids)


def test_tiles_are_read_as_they_were_stored(demo: Demo, tmp_path: Path) -> None:
    run_project(demo.project, CPU)
    project = open_project(demo.project, "files")
    stored = project.entries[0].stored_tiles()
    read = RequestProject(put_request(project, tmp_path / "request")).entries[0].stored_tiles()
    assert (read.ids, read.run_ids, read.class_names) == (
        list(stored.ids),
        list(stored.run_ids),
        list(stored.class_names),
    )
    np.testing.assert_array_equal(read.bounds, stored.bounds)
    for name, values in stored.measurements.items():
        np.testing.assert_array_equal(read.measurements[name], values)


def test_corrections_and_selected_regions_pass_through(demo: Demo, tmp_path: Path) -> None:
    """Twice the same: a correction, then one region anew; by a run, and by a request."""
    run_project(demo.project, CPU)
    reclassify(demo, 0, "3+")
    twin = shutil.copytree(demo.project.parent, tmp_path / "twin") / demo.project.name
    first = next(
        one.id for one in open_project(twin, "files").entries[0].annotations() if "Tumor" in str(one.path_class)
    )
    settings = replace(CPU, selected=(first,))
    run_project(demo.project, settings)
    project = open_project(twin, "files")
    score_project(RequestProject(put_request(project, tmp_path / "request")), settings, lambda event: None)
    take_answer(tmp_path / "request", project)
    assert as_seen(open_project(twin, "files").entries[0]) == as_seen(open_project(demo.project, "files").entries[0])


def test_new_annotations_are_refused(demo: Demo, tmp_path: Path) -> None:
    folder = put_request(open_project(demo.project, "files"), tmp_path / "request")
    before = contents(folder)
    one = suspect_annotation(np.array([0.0, 64.0]), 64.0, TileClass.ONE, TileClass.THREE, 0.97)
    with pytest.raises(UsageError, match="no new annotations") as caught:
        RequestProject(folder).entries[0].apply(ImageUpdate([], [], {}, frozenset(), {}, [one]))
    assert "name the project" in caught.value.next_step
    assert contents(folder) == before


def test_graded_detections_are_those_that_the_script_chose(demo: Demo, tmp_path: Path) -> None:
    folder = put_request(open_project(demo.project, "files"), tmp_path / "request")
    content = json.loads((folder / IMAGE).read_text(encoding="utf-8"))
    (folder / IMAGE).write_text(json.dumps(content | {"graded": [[1, 2], [3, 4.5]]}), encoding="utf-8")
    assert RequestProject(folder).entries[0].detection_centroids(frozenset()).tolist() == [[1, 2], [3, 4.5]]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (IMAGE, {"schema": 2}),
        (IMAGE, {"name": None, "server": None}),
        (IMAGE, {"graded": [[1, 2, 3]]}),
        (IMAGE, {"path_classes": [{"name": "Tumor", "color": [1]}]}),
        (TILES, {"bounds": [[1, 2, 3, 4]]}),
        (TILES, {"classes": ["3+"]}),
    ],
)
def test_a_request_that_is_none_says_so(demo: Demo, tmp_path: Path, file: str, change: dict[str, Any]) -> None:
    folder = put_request(open_project(demo.project, "files"), tmp_path / "request")
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(UsageError, match="no request of the QuPath scripts") as raised:
        RequestProject(folder).entries[0].stored_tiles()
    assert str(folder / file) in raised.value.where


def test_a_folder_without_a_request_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no request"):
        RequestProject(tmp_path)
