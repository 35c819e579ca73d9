"""Labels of projects and GeoJSON files become tiles, and what does not is accounted for."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from conftest import FIXTURES
from labelled_projects import MPP, SPEC, annotation, draw_picture, labelled_project, store_tiles
from shapely.geometry import LineString, Polygon, box

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import Event, ImageFailed, LabelsRead, Warned
from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.qupath.label_classes import LabelClasses
from her2bridge.qupath.seam import OWNERSHIP_KEY, PathClassRef
from her2bridge.qupath.suspect_labels import suspect_annotation
from her2bridge.records import TileClass, TileSpec
from her2bridge.training.label_sources import LabelSource
from her2bridge.training.labels import (
    DISPUTED,
    TWICE,
    Collected,
    LabelSettings,
    PairLabels,
    PatientRule,
    ProjectLabels,
    collect,
)

SETTINGS = LabelSettings(spec=SPEC)
SMALL = box(0, 0, 32, 32)  # four tiles


class Heard(list[Event]):
    def __call__(self, event: Event) -> None:
        self.append(event)

    @property
    def warnings(self) -> list[str]:
        return [f"{one.image}: {one.message}" for one in self if isinstance(one, Warned)]


def gather(
    *sources: Path | LabelSource,
    heard: Heard | None = None,
    settings: LabelSettings = SETTINGS,
    patients: PatientRule | None = None,
    images: Sequence[str] = (),
) -> Collected:
    named = [ProjectLabels(one, backend="files") if isinstance(one, Path) else one for one in sources]
    return collect(named, settings, Heard() if heard is None else heard, patients=patients, images=images)


def places(found: Collected, slide: int = 0) -> dict[tuple[float, float], str]:
    """Labels by their place, in tiles."""
    rows = np.flatnonzero(found.tiles.slide == slide)
    at = [tuple(place) for place in (found.tiles.origins[rows] / 16).tolist()]
    assert len(set(at)) == len(at)
    return {place: TileClass(label).label for place, label in zip(at, found.tiles.labels[rows].tolist(), strict=True)}


def test_regions_become_tiles_on_the_grid_of_a_run(tmp_path: Path) -> None:
    three, one = annotation("a", "HER2: 3+", box(0, 0, 64, 33)), annotation("b", "1+", box(16, 0, 32, 16))
    project = labelled_project(tmp_path / "Dr A", {"s.png": [three, one]})
    heard = Heard()
    found = gather(project, heard=heard)
    wanted = {(float(i), float(j)): "3+" for i in range(4) for j in range(2)} | {(1.0, 0.0): "1+"}
    assert places(found) == wanted
    assert Counter(found.tiles.regions) == {three.id: 7, one.id: 1}
    assert set(found.tiles.annotators) == {"Dr A"}
    assert found.tiles.sides.tolist() == [16.0] * 8
    (slide,) = found.slides
    assert (slide.key, slide.name, slide.patient, slide.mpp) == ("s.png", "s.png", "s.png", MPP)
    assert (slide.project, slide.entry, slide.source.path.name) == (project, "1", "s.png")
    (read,) = [event for event in heard if isinstance(event, LabelsRead)]
    assert read.tiles == {"0": 0, "1+": 1, "2+": 0, "3+": 7, "normal": 0, "noise": 0}
    assert read.left_out == found.left_out == {"tiles less than 90% inside": 4}  # the row below


def test_the_tissue_rule_spares_noise(tmp_path: Path) -> None:
    glass = box(0, 192, 64, 240)
    labels = [annotation("g", "2+", glass), annotation("n", "Noise", box(128, 192, 160, 240))]
    labels.append(annotation("half", "1+", box(64, 144, 96, 176)))
    project = labelled_project(tmp_path / "p", {"s.png": labels})
    heard = Heard()
    found = gather(project, heard=heard)
    assert Counter(places(found).values()) == {"noise": 6, "1+": 2}
    assert found.left_out["tiles of less than 30% tissue"] == 12 + 2
    assert any("regions without a tile: g" in one for one in heard.warnings)
    some = gather(project, settings=replace(SETTINGS, min_tissue=0.1))
    assert Counter(places(some).values()) == {"noise": 6, "1+": 4}  # on the edge of the tissue
    every = gather(project, settings=replace(SETTINGS, min_tissue=0.0))
    assert Counter(places(every).values()) == {"noise": 6, "1+": 4, "2+": 12}


def test_every_class_is_told(tmp_path: Path) -> None:
    classes = ["3+", "3+", "Negative", "Stroma", "Tumor", "Region*", "Ignore*", None]
    labels = [annotation(f"r{n}", one, box(n * 32, 0, n * 32 + 32, 32)) for n, one in enumerate(classes)]
    project = labelled_project(tmp_path / "p", {"s.png": labels})
    heard = Heard()
    found = gather(project, heard=heard)
    told = {use.name: (count, use.becomes.partition(" (")[0]) for use, count in found.classes}
    assert told == {
        "3+": (2, "3+"),
        "Negative": (1, "not used"),
        "Stroma": (1, "unknown"),
        "Tumor": (1, "not used"),
        "Region*": (1, "not used"),
        "Ignore*": (1, "cut out"),
        "unclassified": (1, "unknown"),
    }
    assert len(found.tiles) == 8
    for name in ("Negative", "Stroma", "unclassified"):
        assert any(one.startswith(f"None: regions classed {name} are not used, 1: ") for one in heard.warnings)
    mapped = LabelClasses({"Stroma": TileClass.NORMAL, "unclassified": None}, negative_is_zero=True)
    heard = Heard()
    found = gather(project, settings=replace(SETTINGS, classes=mapped), heard=heard)
    assert not any("mapping file names" in one for one in heard.warnings)
    assert Counter(places(found).values()) == {"3+": 8, "0": 4, "normal": 4}
    amiss = LabelClasses({"Strome": TileClass.NORMAL, "tumor": None})
    gather(project, settings=replace(SETTINGS, classes=amiss), heard=heard)
    assert "None: the mapping file names classes that no region has: Strome" in heard.warnings
    assert found.plain()["classes"][0] == {"class": "3+", "regions": 2, "becomes": "3+"}


def test_what_is_no_area_here_is_listed(tmp_path: Path) -> None:
    bow_tie = Polygon([(0, 0), (64, 64), (64, 0), (0, 64)])
    labels = [
        annotation("good", "1+", bow_tie),
        annotation("line", "1+", LineString([(0, 0), (9, 9)])),
        annotation("away", "1+", box(5000, 0, 5100, 100)),
        annotation("deep", "1+", SMALL, plane=(-1, 2, 0)),
        annotation("cut", "Ignore*", box(0, 0, 64, 16)),
        annotation("tiny", "2+", box(200, 10, 203, 13)),
    ]
    heard = Heard()
    write_annotations(tmp_path / "r.geojson", labels)
    pair = PairLabels(draw_picture(tmp_path / "s.png"), tmp_path / "r.geojson")
    found = gather(pair, heard=heard, settings=replace(SETTINGS, mpp=4.0))
    assert found.left_out["regions without an area"] == 1
    assert found.left_out["regions outside the image"] == 1
    assert found.left_out["regions on another plane"] == 1
    assert found.left_out["regions without a tile"] == 1
    for told in ("area: line", "image: away", "plane: deep", "tile: tiny", "good: outline mended"):
        assert any(told in one for one in heard.warnings), told
    assert (0.0, 3.0) not in places(found)
    assert places(found).keys() == {(0.0, 2.0), (3.0, 2.0), (0.0, 1.0), (3.0, 1.0)}


def test_conflicts_are_listed(tmp_path: Path) -> None:
    labels = [annotation("x", "1+", box(0, 0, 64, 32)), annotation("y", "2+", box(32, 0, 96, 32))]
    heard = Heard()
    found = gather(labelled_project(tmp_path / "p", {"s.png": labels}), heard=heard)
    assert places(found) == {
        (float(i), float(j)): label for i, label in ((0, "1+"), (1, "1+"), (4, "2+"), (5, "2+")) for j in (0, 1)
    }
    ((image, conflict),) = found.conflicts
    assert (image, conflict.first, conflict.second, conflict.area) == ("s.png", "x (1+)", "y (2+)", 1024)
    assert "s.png: conflict: x (1+) and y (2+) overlap by 1,024 px²; the overlap is left out" in heard.warnings
    assert found.plain()["conflicts"][0]["area_px2"] == 1024


def test_corrected_tiles_count_above_regions(tmp_path: Path) -> None:
    project = labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", box(0, 0, 96, 16))]})
    places_of = [(0, 0), (16, 0), (32, 0), (48, 0), (160, 208), (8, 100), (80, 0)]
    classes = ["2+", "3+", "Stroma", "Negative", "Noise*", "1+", None]  # 0 was what the run found
    ids = store_tiles(project, places_of, classes)
    found = gather(project)
    assert places(found) == {
        (0.0, 0.0): "2+",
        (1.0, 0.0): "3+",
        (3.0, 0.0): "3+",
        (4.0, 0.0): "3+",
        (10.0, 13.0): "noise",
    }
    assert set(found.tiles.regions) & set(ids) == {ids[0], ids[1], ids[4]}
    assert found.corrected == found.plain()["corrected_tiles"] == 3
    assert found.left_out["corrected tiles of no label's class"] == 2
    assert found.left_out["corrected tiles of another size or grid"] == 1
    without = gather(project, settings=replace(SETTINGS, corrections=False))
    assert places(without) == {(float(i), 0.0): "3+" for i in range(6)}
    only = labelled_project(tmp_path / "q", {"s.png": [annotation("t", "Tumor", box(0, 0, 96, 16))]})
    store_tiles(only, [(0, 0), (16, 0)], ["2+", "Negative"])
    assert places(gather(only)) == {(0.0, 0.0): "2+"}
    with pytest.raises(NotEnoughLabels):
        gather(only, settings=replace(SETTINGS, corrections=False))


def test_a_place_that_was_corrected_twice(tmp_path: Path) -> None:
    project = labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", SMALL)]})
    store_tiles(project, [(0, 0), (0, 0), (16, 0), (16, 0)], ["2+", "1+", "2+", "2+"])
    found = gather(project)
    assert places(found) == {(1.0, 0.0): "2+", (0.0, 1.0): "3+", (1.0, 1.0): "3+"}
    assert found.left_out == {"corrected tiles of no label's class": 1}


def test_a_file_of_regions_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The regions cannot be read"):
        gather(PairLabels(draw_picture(tmp_path / "s.png"), tmp_path / "nowhere.geojson"))


def test_corrected_tiles_of_another_field_are_left_out(tmp_path: Path) -> None:
    project = labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", SMALL)]})
    store_tiles(project, [(64, 64)], ["2+"])
    found = gather(project, settings=replace(SETTINGS, spec=TileSpec(32, 4.0)))
    assert found.tiles.sides.tolist() == [32.0]
    assert found.left_out == {"corrected tiles of another size or grid": 1}


def test_suspect_labels_are_no_labels_until_a_person_says_so(tmp_path: Path) -> None:
    suspect = suspect_annotation(np.array([0.0, 0.0]), 16.0, TileClass.THREE, TileClass.TWO, 0.9)
    judged = suspect_annotation(np.array([16.0, 0.0]), 16.0, TileClass.THREE, TileClass.TWO, 0.9)
    judged = replace(judged, path_class=PathClassRef(("2+",)))
    assert OWNERSHIP_KEY in judged.metadata
    found = gather(labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", SMALL), suspect, judged]}))
    assert places(found) == {(0.0, 0.0): "3+", (1.0, 0.0): "2+", (0.0, 1.0): "3+", (1.0, 1.0): "3+"}
    assert [use.name for use, _ in found.classes] == ["3+", "2+"]


def test_further_grids(tmp_path: Path) -> None:
    project = labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", box(0, 0, 96, 96))]})
    found, again = (gather(project, settings=replace(SETTINGS, offsets=2, seed=5)) for _ in range(2))
    assert found.tiles.origins.tolist() == again.tiles.origins.tolist()
    assert found.tiles.origins[:36].tolist() == gather(project).tiles.origins.tolist()
    shifts = {tuple(shift) for shift in (found.tiles.origins % 16).tolist()}
    assert len(shifts) == 3
    assert all(value == round(value) for shift in shifts for value in shift)
    assert 36 + 2 * 25 <= len(found.tiles) <= 36 + 2 * 36
    area = shapely.box(-1.6, -1.6, 97.6, 97.6)
    assert all(area.covers(box(x, y, x + 16, y + 16)) for x, y in found.tiles.origins.tolist())
    other = gather(project, settings=replace(SETTINGS, offsets=2, seed=6))
    assert found.tiles.origins.tolist() != other.tiles.origins.tolist()


def test_geojson_beside_a_slide(tmp_path: Path) -> None:
    slide = draw_picture(tmp_path / "lone.png")
    regions = tmp_path / "Dr B" / "lone.geojson"
    write_annotations(regions, [annotation("r", "Normal tissue", SMALL), annotation("t", "Tumor", SMALL)])
    pair = PairLabels(slide, regions)
    heard = Heard()
    with pytest.raises(NotEnoughLabels, match=r"Normal tissue, 1: normal; Tumor, 1: not used"):
        gather(pair, heard=heard)
    (failed,) = [event for event in heard if isinstance(event, ImageFailed)]
    assert (failed.image, failed.error) == ("lone.png", "NoCalibration")
    found = gather(pair, settings=replace(SETTINGS, mpp=4.0))
    assert Counter(places(found).values()) == {"normal": 4}
    assert set(found.tiles.annotators) == {"Dr B"}
    assert (found.slides[0].project, found.slides[0].mpp) == (None, 4.0)
    assert found.slides[0].source.path == slide


def test_a_failed_image_stops_no_other(tmp_path: Path) -> None:
    labels = {f"{n}.png": [annotation("r", "3+", SMALL)] for n in range(3)} | {"bare.png": []}
    project = labelled_project(tmp_path / "p", labels)
    (tmp_path / "slides" / "1.png").unlink()
    (tmp_path / "slides" / "bare.png").unlink()  # without labels it is not looked for
    heard = Heard()
    found = gather(project, heard=heard)
    assert [slide.name for slide in found.slides] == ["0.png", "2.png"]
    assert found.failed == ("1.png",)
    (failed,) = [event for event in heard if isinstance(event, ImageFailed)]
    assert (failed.image, failed.error) == ("1.png", "SlideNotFound")
    assert gather(project, images=["2.png"]).failed == ()
    with pytest.raises(UsageError, match=r"No image is called '7\.png'"):
        gather(project, images=["7.png"])


def test_coarse_slides(tmp_path: Path) -> None:
    project = labelled_project(tmp_path / "p", {"s.png": [annotation("r", "3+", SMALL)]}, mpp=4.8)
    heard = Heard()
    assert gather(project, heard=heard).slides[0].mpp == pytest.approx(4.8)
    assert any("coarser than the model expects" in one for one in heard.warnings)
    with pytest.raises(NotEnoughLabels):
        gather(project, settings=replace(SETTINGS, spec=TileSpec(32, 2.0)))


def test_one_slide_of_two_people(tmp_path: Path) -> None:
    a = labelled_project(tmp_path / "A", {"s.png": [annotation("a", "1+", box(0, 0, 64, 16))]})
    b = labelled_project(
        tmp_path / "B",
        {"s.png": [annotation("b", "1+", box(32, 0, 48, 16)), annotation("c", "2+", box(48, 0, 96, 16))]},
    )
    heard = Heard()
    found = gather(a, b, heard=heard)
    assert len(found.slides) == 1
    assert places(found) == {(0.0, 0.0): "1+", (1.0, 0.0): "1+", (2.0, 0.0): "1+", (4.0, 0.0): "2+", (5.0, 0.0): "2+"}
    assert found.tiles.annotators == ("A", "A", "A", "B", "B")
    assert (found.left_out[DISPUTED], found.left_out[TWICE]) == (1, 1)
    assert "s.png: places that A and B label differently are left out: 1+ or 2+: 1" in heard.warnings
    store_tiles(b, [(0, 0), (48, 0)], ["3+", "3+"])
    found = gather(a, b)
    assert places(found)[0.0, 0.0] == places(found)[3.0, 0.0] == "3+"
    assert DISPUTED not in found.left_out


def test_where_else_a_slides_labels_came_from(tmp_path: Path) -> None:
    a, b = (
        labelled_project(tmp_path / name, {"s.png": [annotation("r", "1+", box(x, 0, x + 32, 16))]})
        for name, x in (("A", 0), ("B", 64))
    )
    found = gather(a, b)
    place = {"key": "s.png", "project": str(b), "entry": "1", "name": "s.png"}
    assert found.also_in == (place,)
    assert found.plain()["also_in"] == [place]


def test_patients_of_one_file_are_one(tmp_path: Path) -> None:
    """P and Q share the file x; y is Q's alone, and must not be parted from x."""
    for number, name in enumerate(("x.png", "y.png")):
        draw_picture(tmp_path / "slides" / name, number)
    shutil.copy(tmp_path / "slides" / "x.png", tmp_path / "slides" / "z.png")
    regions = [annotation("r", "3+", SMALL)]
    a = labelled_project(tmp_path / "A", {"x.png": regions}, {"x.png": {"patient": "P"}})
    who = {"z.png": {"Patient": "Q"}, "y.png": {"PATIENT": "Q"}}
    b = labelled_project(tmp_path / "B", {"z.png": regions, "y.png": regions}, who, mpp=3.9)  # other tiles of x
    heard = Heard()
    found = gather(a, b, patients=PatientRule(key="Patient"), heard=heard)
    assert [slide.patient for slide in found.slides] == ["P", "P", "P"]
    assert any("different patients are named for its file" in one for one in heard.warnings)


def test_a_pair_has_no_patient_key(tmp_path: Path) -> None:
    write_annotations(tmp_path / "r.geojson", [annotation("r", "3+", SMALL)])
    pair, heard = PairLabels(draw_picture(tmp_path / "s.png"), tmp_path / "r.geojson"), Heard()
    with pytest.raises(NotEnoughLabels):
        gather(pair, patients=PatientRule(key="Patient"), settings=replace(SETTINGS, mpp=4.0), heard=heard)
    (failed,) = [event for event in heard if isinstance(event, ImageFailed)]
    assert "--patient-pattern" in failed.next_step
    assert "QuPath" not in failed.next_step


def test_an_answer_counts_above_a_corrected_tile(tmp_path: Path) -> None:
    asked = [
        suspect_annotation(np.array([x, 0.0]), 16.0, TileClass.THREE, TileClass.TWO, 0.9) for x in (0.0, 16.0, 32.0)
    ]
    names = ("2+", "Stroma", "Ignore*")
    answers = [replace(one, path_class=PathClassRef((name,))) for one, name in zip(asked, names, strict=True)]
    labels = [annotation("r", "1+", box(0, 0, 64, 16)), *answers]
    project = labelled_project(tmp_path / "p", {"s.png": labels})
    store_tiles(project, [(0, 0), (16, 0), (32, 0), (48, 0)], ["3+"] * 4)
    found = gather(project)
    assert places(found) == {(0.0, 0.0): "2+", (1.0, 0.0): "3+", (3.0, 0.0): "3+"}
    assert found.left_out["corrected tiles under a suspect label that was answered"] == 2


def test_slides_of_one_name_are_told_apart(tmp_path: Path) -> None:
    projects = []
    for place in ("x", "y"):
        draw_picture(tmp_path / place / "slides" / "s.png", seed=ord(place))
        projects.append(labelled_project(tmp_path / place / "p", {"s.png": [annotation("r", "3+", SMALL)]}))
    found = gather(*projects)
    assert [(slide.key, slide.name, slide.patient) for slide in found.slides] == [
        ("s.png", "s.png", "s.png"),
        ("s.png (2)", "s.png", "s.png (2)"),
    ]


def test_two_views_of_one_file_are_one_patients(tmp_path: Path) -> None:
    shutil.copy(draw_picture(tmp_path / "slides" / "s.png"), tmp_path / "slides" / "copy.png")
    labels = {name: [annotation("r", "3+", SMALL)] for name in ("s.png", "copy.png")}
    project = labelled_project(tmp_path / "p", labels)
    found = gather(project)
    assert [slide.name for slide in found.slides] == ["s.png"]  # the same file: one slide
    pair = tmp_path / "r.geojson"
    write_annotations(pair, [annotation("r", "1+", box(100, 0, 132, 32))])
    other = PairLabels(tmp_path / "slides" / "copy.png", pair)
    found = gather(project, other, settings=replace(SETTINGS, mpp=3.9))  # another µm/px: another slide
    assert len(found.slides) == 2
    assert {slide.patient for slide in found.slides} == {"s.png"}


def test_patients(tmp_path: Path) -> None:
    labels = {f"P{n}_{part}.png": [annotation("r", "3+", SMALL)] for n in (1, 2) for part in "ab"}
    case = {name: {"Case": f"case {name[1]}"} for name in labels}
    project = labelled_project(tmp_path / "p", labels, case)
    for rule, wanted in (
        (PatientRule(key="Case"), ["case 1", "case 1", "case 2", "case 2"]),
        (PatientRule(pattern=r"^(P\d)_"), ["P1", "P1", "P2", "P2"]),
        (PatientRule(), list(labels)),
    ):
        heard = Heard()
        found = gather(project, patients=rule, heard=heard)
        assert [slide.patient for slide in found.slides] == wanted
        assert any("patient's of its own" in one for one in heard.warnings) is not rule.is_stated
    heard = Heard()
    found = gather(project, patients=PatientRule(pattern="^(P1)"), heard=heard)
    assert found.failed == ("P2_a.png", "P2_b.png")
    with pytest.raises(NotEnoughLabels):
        gather(project, patients=PatientRule(key="Patient"))


@pytest.mark.parametrize(("key", "pattern"), [("a", "(b)"), (None, "b"), (None, "(b")])
def test_rules_that_cannot_be(key: str | None, pattern: str | None) -> None:
    with pytest.raises(UsageError):
        PatientRule(key, pattern)


@pytest.mark.parametrize(
    "change",
    [
        *({"min_inside": 0.5}, {"min_inside": 1.1}, {"min_tissue": -0.1}, {"min_tissue": 1.1}, {"offsets": -1}),
        *({"seed": -1}, {"spec": TileSpec(8)}, {"spec": TileSpec(256, 0.0)}),
    ],
)
def test_settings_that_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        LabelSettings(**change)  # type: ignore[arg-type]


def test_no_labels_names_the_classes_there() -> None:
    heard = Heard()
    with pytest.raises(NotEnoughLabels, match=r"Tumor, 6: not used \(a region to be scored, not a label\)"):
        gather(FIXTURES / "her2_cores" / "analysis", heard=heard)
    assert not [event for event in heard if isinstance(event, ImageFailed)]
    with pytest.raises(NotEnoughLabels, match=r"Negative, 1: not used"):
        gather(FIXTURES / "her2_cores" / "labels", heard=heard)
    assert len([event for event in heard if isinstance(event, ImageFailed)]) == 5


def test_the_real_cores(her2_cores: Path) -> None:
    settings = LabelSettings(classes=LabelClasses(negative_is_zero=True))
    found = gather(her2_cores / "labels", settings=settings)
    assert found.tiles.counts().tolist() == [66, 8, 16, 35, 106, 12]
    assert found.left_out == {"tiles less than 90% inside": 274, "regions without a tile": 2}
    assert found.failed == ()
    assert {slide.mpp for slide in found.slides} == {0.25}
    plain = gather(her2_cores / "labels", settings=LabelSettings(), images=["core_1.tif", "core_0.tif"])
    assert plain.tiles.counts().tolist() == [0, 3, 0, 0, 49, 5]
