"""Five real tissue cores in a project that a real QuPath wrote and that has moved: from the first run to the second."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import FIXTURES, contents

from her2bridge import events as ev
from her2bridge.qupath.open import open_project
from her2bridge.qupath.results import METADATA_KEYS
from her2bridge.qupath.seam import Entry
from her2bridge.run import run_project
from her2bridge.settings import RunSettings

GRADES = {"0": "Negative", "1+": "1+", "2+": "2+", "3+": "3+", "normal": "Normal", "noise": "Noise*"}


@pytest.fixture(scope="module")
def scored(her2_cores: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ev.Event]]:
    """A copy of the project after one run, and what the run told. The slides stay where they are, found by a link."""
    home = tmp_path_factory.mktemp("cores")
    (home / "images").symlink_to(her2_cores / "images")
    shutil.copytree(FIXTURES / "her2_cores" / "analysis", home / "analysis")
    heard: list[ev.Event] = []
    run_project(home / "analysis", RunSettings(device="cpu"), heard.append)
    return home / "analysis", heard


def test_all_five_are_scored(scored: tuple[Path, list[ev.Event]]) -> None:
    folder, heard = scored
    assert [event for event in heard if isinstance(event, ev.ImageFailed)] == []
    results = {event.image: event for event in heard if isinstance(event, ev.ImageScored)}
    assert len(results) == 5
    for entry in open_project(folder, "files").entries:
        result = results[entry.name]
        assert {key: entry.metadata[key] for key in METADATA_KEYS} == result.metadata
        assert entry.metadata["Specimen"] == "resection"
        _tiles_agree(entry, result)


def test_the_shipped_model_finds_what_the_cores_show(scored: tuple[Path, list[ev.Event]]) -> None:
    """Cores that were looked at while the model was made: this holds it to what it did, and says nothing of others."""
    found = {event.image.removesuffix(".tif"): event for event in scored[1] if isinstance(event, ev.ImageScored)}
    assert found["core_3_left_half"].score == "3+"
    assert found["core_2_ish_positive"].score in ("2+", "3+")
    assert found["core_0"].score in ("0", "1+")
    assert found["core_0"].tile_h_score <= 30
    assert found["core_1"].score in ("0", "1+", "Not assessable")
    muscle = found["core_2_ish_negative"]
    assert muscle.score == "Not assessable"
    assert muscle.counts["normal"] >= 0.9 * (sum(muscle.counts.values()) - muscle.counts["noise"])
    scores = [found[name].tile_h_score for name in ("core_3_left_half", "core_2_ish_positive", "core_0")]
    assert scores == sorted(scores, reverse=True)


def _tiles_agree(entry: Entry, result: ev.ImageScored) -> None:
    """The tiles in the file, counted anew, against the metadata and the regions' measurements."""
    objects = list(entry.objects())
    tiles = [one for one in objects if one.kind == "tile"]
    names = Counter(str(tile.path_class) for tile in tiles)
    assert {grade: names[name] for grade, name in GRADES.items()} == result.counts
    assert entry.metadata["HER2 AI tumour tiles"] == str(sum(names[GRADES[grade]] for grade in list(GRADES)[:4]))
    regions = {one.id: one for one in objects if one.kind == "annotation" and str(one.path_class) == "Tumor"}
    assert {region["id"] for region in result.regions} == set(regions)
    for region in result.regions:
        annotation = regions[region["id"]]
        assert annotation.geometry is not None
        inside = [one for one in tiles if one.geometry and annotation.geometry.covers(one.geometry.centroid)]
        found = Counter(str(one.path_class) for one in inside)
        assert {grade: found[name] for grade, name in GRADES.items()} == region["counts"]
        assert annotation.measurements["HER2: tumour tiles"] == sum(list(region["counts"].values())[:4])
        assert {one.parent_id for one in inside} <= set(regions)


def test_what_the_users_had_is_as_it_was(scored: tuple[Path, list[ev.Event]]) -> None:
    folder, _ = scored
    before = open_project(FIXTURES / "her2_cores" / "analysis", "files")
    after = open_project(folder, "files")
    for had, has in zip(before.entries, after.entries, strict=True):
        kept = {one.id: one for one in has.objects() if one.kind != "tile"}
        for one in had.objects():
            assert one.geometry is not None
            assert one.geometry.equals_exact(kept[one.id].geometry)
            assert (one.name, one.path_class, one.locked) == (
                kept[one.id].name,
                kept[one.id].path_class,
                kept[one.id].locked,
            )
        assert has.metadata.items() >= had.metadata.items()
    classes = [str(one) for one in before.path_classes]
    assert [str(one) for one in after.path_classes][: len(classes)] == classes
    untouched = json.loads((folder / "project.qpproj").read_bytes())
    original = json.loads((FIXTURES / "her2_cores" / "analysis" / "project.qpproj").read_bytes())
    for content in (untouched, original):
        for image in content["images"]:
            del image["metadata"]
    assert untouched == original


def test_again_changes_nothing(scored: tuple[Path, list[ev.Event]]) -> None:
    folder, _ = scored
    before = contents(folder)
    finished = run_project(folder, RunSettings(device="cpu"))
    assert (finished.scored, finished.skipped, finished.failed) == (0, 5, 0)
    assert contents(folder) == before


def test_the_strongly_stained_core_is_stained_most(scored: tuple[Path, list[ev.Event]]) -> None:
    """All that may be asked of a bundle made of drawings; its card promises no more."""
    _, heard = scored
    results = {event.image: event for event in heard if isinstance(event, ev.ImageScored)}
    strong, weak = results["core_3_left_half.tif"], results["core_0.tif"]
    assert strong.tile_h_score > results["core_2_ish_positive.tif"].tile_h_score > weak.tile_h_score
    assert strong.counts["0"] == 0
