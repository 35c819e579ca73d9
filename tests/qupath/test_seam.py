"""What every backend must do with a project: read it as QuPath does, change what is asked for, and nothing else."""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from conftest import FIXTURES, contents

from her2bridge.errors import (
    ChangedOnDisk,
    DataFileDamaged,
    DataFileVersion,
    ProjectLocked,
    ProjectReadOnly,
    WriteFailed,
)
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import OWNERSHIP_KEY, Entry, ImageUpdate, NewTiles, PathClassRef, PathObject, Project
from her2bridge.qupath.via_files import backend as files_backend
from her2bridge.records import Float32Array

VERSIONS = ("0_5_1", "0_6_0", "0_7_0")
NEW_ID = str(uuid.UUID(int=3, version=4))
NOTHING = ImageUpdate([], [], {}, frozenset(), {})
OURS = frozenset({"HER2: tumour tiles", "HER2: tile H-score"})


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a project that a real QuPath wrote. Its slides, which only QuPath 0.5 wants, are beside it if here."""
    slides = Path(__file__).parents[3] / "shared" / "data" / "qupath_objects" / "images"
    if slides.is_dir():
        (tmp_path / "images").symlink_to(slides)
    return Path(shutil.copytree(FIXTURES / "qupath_objects" / f"qupath_{request.param}", tmp_path / "pro.ject"))


@pytest.fixture
def project(folder: Path, backend: str) -> Project:
    found = open_project(folder, backend)
    if found.read_only_reason is not None:
        pytest.skip(found.read_only_reason)
    return found


def tiles(parents: list[str | None], count: int = 40, *, side: float = 264.46, mark: str = "0123456789ab") -> NewTiles:
    """Tiles below these parents in turn, of six classes and none."""
    rng = np.random.default_rng(count)
    measurements: Float32Array = rng.random((count, 7), dtype=np.float32)
    measurements[0, 0] = np.nan
    return NewTiles(
        origins=rng.integers(0, 50, (count, 2)) * side,
        side=side,
        parents=np.arange(count) % len(parents),
        parent_ids=parents,
        classes=np.arange(count) % 5 - 1,
        path_classes=[
            PathClassRef(("Negative",), (112, 112, 225)),
            PathClassRef(("3+",), (255, 0, 0)),  # the project's own colour
            PathClassRef(("HER2", "2+"), (255, 187, 62)),
            PathClassRef(("Noise*",), (150, 150, 150)),
        ],
        measurement_names=[f"HER2: p({name})" for name in "abcdefµ"],
        measurements=measurements,
        mark=mark,
        ids=[str(uuid.UUID(int=1000 * count + number, version=4)) for number in range(count)],
    )


def everything(entry: Entry) -> dict[str, tuple[object, ...]]:
    """All objects, by id, in a form that can be compared."""
    return {one.id: _comparable(one) for one in entry.objects()}


def _comparable(one: PathObject) -> tuple[object, ...]:
    numbers = [(name, repr(value)) for name, value in one.measurements.items()]
    geometries = [None if shape is None else shape.wkb for shape in (one.geometry, one.nucleus)]
    plain = replace(one, geometry=None, nucleus=None, measurements={}, metadata={})
    fields = [getattr(plain, name) for name in ("kind", "parent_id", "name", "path_class", "rgb", "plane", "locked")]
    return (*fields, one.description, one.is_ellipse, numbers, dict(one.metadata), *geometries)


class TestReading:
    def test_entries(self, project: Project) -> None:
        assert [entry.id for entry in project.entries] == ["1", "2", "3"]
        assert [entry.name for entry in project.entries] == ["HER2_case 01.tif", "case_02.png", "renamed pyramidal"]
        first = project.entries[0]
        assert dict(first.metadata) == {"Patient": "P-001", "HER2 IHC": "2+"}
        assert first.server_json["uri"] == "file:///slides/her2/images/HER2_case%2001.tif"
        assert (
            project.saved_uri == f"file:/slides/her2/qupath_{project.backend[-6:-1].replace('.', '_')}/project.qpproj"
        )
        assert project.read_only_reason is None
        assert first.read_only_reason is None

    def test_annotations_are_the_objects_of_that_kind(self, project: Project) -> None:
        for entry in project.entries:
            wanted = [one.id for one in entry.objects() if one.kind == "annotation"]
            assert [one.id for one in entry.annotations()] == wanted

    def test_classes(self, project: Project) -> None:
        names = [str(one) for one in project.path_classes]
        assert names[:4] == ["0", "1+", "2+", "3+"]
        assert PathClassRef(("3+",), (255, 0, 0)) in project.path_classes

    def test_graded_detections_of_others(self, project: Project) -> None:
        entry = project.entries[0]
        found = entry.detection_centroids(frozenset({"2+", "3+"}))
        wanted = [
            one.geometry.centroid.coords[0]
            for one in entry.objects()
            if one.kind in ("detection", "tile", "cell") and str(one.path_class) in ("2+", "3+") and one.geometry
        ]
        assert len(wanted) == 2
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(wanted, axis=0), atol=0.02)

    def test_an_image_without_data(self, project: Project) -> None:
        shutil.rmtree(project.folder / "data" / "2")
        (entry,) = [one for one in open_project(project.path, "files").entries if one.id == "2"]
        assert entry.annotations() == []
        assert list(entry.objects()) == []
        assert len(entry.stored_tiles()) == 0


class TestApply:
    def test_tiles_come_back_as_they_were_given(self, project: Project) -> None:
        entry = project.entries[0]
        before = everything(entry)
        annotations = [one.id for one in entry.annotations()]
        new = tiles([*annotations, None])
        with project.writing():
            entry.apply(ImageUpdate([], [new], {}, OURS, {}))
        again = open_project(project.path, "files").entries[0]
        after = everything(again)
        assert {key: value for key, value in after.items() if key not in new.ids} == before
        objects = {one.id: one for one in again.objects() if one.id in set(new.ids)}
        assert len(objects) == len(new)
        for row, one in enumerate(objects[key] for key in new.ids):
            assert one.kind == "tile"
            assert one.parent_id == new.parent_ids[new.parents[row]]
            assert one.path_class == ([*new.path_classes, None][new.classes[row]])
            assert one.geometry is not None
            np.testing.assert_allclose(one.geometry.bounds, new.bounds()[row], atol=0.0051)
            assert list(one.measurements) == list(new.measurement_names)
            np.testing.assert_array_equal(list(one.measurements.values()), new.measurements[row].astype(float))
            assert dict(one.metadata) == {OWNERSHIP_KEY: new.mark}
            assert not one.locked

    def test_stored_tiles_are_exact(self, project: Project) -> None:
        entry = project.entries[0]
        new = [tiles([None], 40), tiles([entry.annotations()[0].id], 9, side=256, mark="other")]
        with project.writing():
            entry.apply(ImageUpdate([], new, {}, OURS, {}))
        stored = open_project(project.path, "files").entries[0].stored_tiles()
        order = [stored.ids.index(one) for group in new for one in group.ids]
        assert len(order) == len(stored) == 49
        np.testing.assert_array_equal(stored.bounds[order], np.concatenate([group.bounds() for group in new]))
        assert [stored.class_names[row] for row in order] == [name for group in new for name in group.class_names()]
        assert [stored.run_ids[row] for row in order] == ["0123456789ab"] * 40 + ["other"] * 9
        for column, name in enumerate(new[0].measurement_names):
            wanted = np.concatenate([group.measurements[:, column] for group in new])
            np.testing.assert_array_equal(stored.measurements[name][order], wanted)

    def test_other_graded_detections_are_not_ours(self, project: Project) -> None:
        entry = project.entries[0]
        before = entry.detection_centroids(frozenset({"3+"}))
        with project.writing():
            entry.apply(ImageUpdate([], [tiles([None])], {}, OURS, {}))
        np.testing.assert_array_equal(entry.detection_centroids(frozenset({"3+"})), before)

    def test_removing_what_was_added_leaves_all_as_it_was(self, project: Project, backend: str) -> None:
        entry = project.entries[0]
        data = project.folder / "data" / "1" / "data.qpdata"
        before, objects = data.read_bytes(), everything(entry)
        annotations = [one.id for one in entry.annotations()]
        new = tiles([*annotations, None])
        measured = {annotations[0]: {"HER2: tumour tiles": 3.0}, annotations[1]: {"HER2: tile H-score": 0.1}}
        with project.writing():
            entry.apply(ImageUpdate([], [new], measured, OURS, {}))
            assert entry.annotations()[0].measurements["HER2: tumour tiles"] == 3.0
            entry.apply(ImageUpdate(new.ids[:13], [], measured, OURS, {}))
            assert sorted(entry.stored_tiles().ids) == sorted(new.ids[13:])
            entry.apply(ImageUpdate(new.ids[13:], [], {}, OURS, {}))
        assert everything(entry) == objects
        assert backend == "paquo" or data.read_bytes() == before

    def test_others_measurements_stay_in_place(self, project: Project) -> None:
        entry = project.entries[0]
        own = entry.annotations()[0]
        theirs = {"Area µm²": 1.5, "HER2: mine": float("nan"), "Length": 0.1}
        values = {own.id: {"HER2: tile H-score": 1.25, "HER2: tumour tiles": 7.0}}
        with project.writing():
            entry.apply(ImageUpdate([], [], {own.id: theirs}, frozenset(), {}))
            entry.apply(ImageUpdate([], [], values, OURS, {}))
            entry.apply(ImageUpdate([], [], {own.id: {"HER2: tumour tiles": 8.0}}, OURS, {}))
        (now,) = [one for one in entry.annotations() if one.id == own.id]
        wanted = {**own.measurements, **theirs, "HER2: tumour tiles": 8.0}
        assert [(k, repr(v)) for k, v in now.measurements.items()] == [(k, repr(v)) for k, v in wanted.items()]

    def test_only_our_tiles_may_be_removed(self, project: Project) -> None:
        entry = project.entries[0]
        theirs = next(one.id for one in entry.objects() if one.kind == "tile")
        before = contents(project.folder)
        with project.writing(), pytest.raises(ValueError, match="not ours to remove"):
            entry.apply(ImageUpdate([theirs], [], {}, OURS, {}))
        with project.writing(), pytest.raises(ValueError, match="no annotations to put tiles below"):
            entry.apply(ImageUpdate([], [tiles(["nobody"])], {}, OURS, {}))
        assert contents(project.folder) == before

    def test_metadata(self, project: Project) -> None:
        entry = project.entries[0]
        with project.writing():
            entry.apply(replace(NOTHING, metadata={"Patient": None, "HER2 AI score": "3+"}))
        again = open_project(project.path, "files")
        assert dict(again.entries[0].metadata) == {"HER2 IHC": "2+", "HER2 AI score": "3+"}
        assert dict(entry.metadata) == dict(again.entries[0].metadata)
        assert dict(again.entries[1].metadata) == dict(project.entries[1].metadata)

    def test_counts_that_qupath_shows(self, project: Project) -> None:
        entry = project.entries[0]
        path = project.folder / "data" / "1" / "summary.json"
        before = json.loads(path.read_bytes())
        with project.writing():
            entry.apply(ImageUpdate([], [tiles([None])], {}, OURS, {}))
        after = json.loads(path.read_bytes())
        assert after["server"] == before["server"]
        assert after["imageType"] == before["imageType"]
        assert after["timestamp"] >= before["timestamp"]
        counts, had = after["hierarchy"], before["hierarchy"]
        assert counts["nObjects"] == had["nObjects"] + 40
        assert counts["objectTypeCounts"] == had["objectTypeCounts"] | {"Tiles": had["objectTypeCounts"]["Tiles"] + 40}
        assert counts["annotationClassificationCounts"] == had["annotationClassificationCounts"]
        wanted = Counter(had["detectionClassificationCounts"])
        wanted += Counter(name or "Unclassified" for name in tiles([None]).class_names())
        assert counts["detectionClassificationCounts"] == wanted

    def test_an_image_without_data_gets_some(self, project: Project) -> None:
        shutil.rmtree(project.folder / "data" / "2")
        again = open_project(project.path, "files")
        with again.writing():
            again.entries[1].apply(ImageUpdate([], [tiles([None])], {}, OURS, {}))
        stored = open_project(project.path, "files").entries[1].stored_tiles()
        assert len(stored) == 40
        summary = json.loads((project.folder / "data" / "2" / "summary.json").read_bytes())
        assert summary["imageType"] == "UNSET"
        assert summary["server"] == {"width": 512, "height": 512, "sizeC": 3, "sizeZ": 1, "sizeT": 1}

    def test_the_files_before_are_kept(self, project: Project) -> None:
        data = project.folder / "data" / "1" / "data.qpdata"
        before, project_before = data.read_bytes(), project.path.read_bytes()
        with project.writing():
            project.entries[0].apply(ImageUpdate([], [tiles([None])], {}, OURS, {"a": "b"}))
        assert data.with_name("data.qpdata.bkp").read_bytes() == before
        assert project.path.with_name("project.qpproj.backup").read_bytes() == project_before


def drawn() -> list[PathObject]:
    """Annotations of ours: a square, and an area with a hole."""
    square = PathObject(
        "annotation",
        str(uuid.UUID(int=1, version=4)),
        None,
        name="label 1+, model 3+",
        path_class=PathClassRef(("Suspect",), (255, 0, 255)),
        geometry=shapely.box(100, 200, 364.46, 464.46),
        metadata={OWNERSHIP_KEY: "suspect"},
        locked=True,
        description="labelled 1+, µ, the model says 3+",
    )
    area = shapely.box(600.5, 600, 900, 900.25).difference(shapely.Point(700, 700).buffer(40))
    return [square, replace(square, id=str(uuid.UUID(int=2, version=4)), geometry=area, locked=False, name=None)]


class TestAnnotations:
    def test_they_come_back_as_they_were_given(self, project: Project) -> None:
        entry = project.entries[0]
        before, wanted = everything(entry), drawn()
        with project.writing():
            entry.apply(replace(NOTHING, annotations=wanted))
        again = open_project(project.path, "files").entries[0]
        after = {one.id: one for one in again.objects()}
        new = {one.id for one in wanted}
        assert {key: _comparable(one) for key, one in after.items() if key not in new} == before
        for one in wanted:
            has = after[one.id]
            assert _comparable(replace(has, geometry=None)) == _comparable(replace(one, geometry=None))
            assert one.geometry is not None
            assert shapely.hausdorff_distance(one.geometry, has.geometry) < 0.02
        assert len(again.stored_tiles()) == 0

    def test_removing_them_leaves_all_as_it_was(self, project: Project, backend: str) -> None:
        entry = project.entries[0]
        data = project.folder / "data" / "1" / "data.qpdata"
        before, objects, wanted = data.read_bytes(), everything(entry), drawn()
        with project.writing():
            entry.apply(replace(NOTHING, annotations=wanted))
            entry.apply(replace(NOTHING, remove_ids=[wanted[0].id], annotations=[replace(wanted[0], id=NEW_ID)]))
            assert {one.id for one in entry.annotations()} - objects.keys() == {wanted[1].id, NEW_ID}
            entry.apply(replace(NOTHING, remove_ids=[wanted[1].id, NEW_ID]))
        assert everything(entry) == objects
        assert backend == "paquo" or data.read_bytes() == before

    def test_what_lies_below_one_takes_its_place(self, project: Project) -> None:
        entry = project.entries[0]
        before, wanted = everything(entry), drawn()
        below = tiles([wanted[0].id], 9)
        with project.writing():
            entry.apply(replace(NOTHING, annotations=wanted))
            entry.apply(replace(NOTHING, tiles=[below], measurement_names=OURS))
            entry.apply(replace(NOTHING, remove_ids=[one.id for one in wanted]))
        again = open_project(project.path, "files").entries[0]
        assert {one.id: one.parent_id for one in again.objects() if one.id not in before} == dict.fromkeys(below.ids)

    def test_those_of_persons_are_not_removed(self, project: Project) -> None:
        entry = project.entries[0]
        before = contents(project.folder)
        with project.writing(), pytest.raises(ValueError, match="not ours to remove"):
            entry.apply(replace(NOTHING, remove_ids=[entry.annotations()[0].id]))
        assert contents(project.folder) == before

    def test_counts_that_qupath_shows(self, project: Project) -> None:
        path = project.folder / "data" / "1" / "summary.json"
        had = json.loads(path.read_bytes())["hierarchy"]
        with project.writing():
            project.entries[0].apply(replace(NOTHING, annotations=drawn()))
        counts = json.loads(path.read_bytes())["hierarchy"]
        assert counts["nObjects"] == had["nObjects"] + 2
        assert counts["annotationClassificationCounts"] == had["annotationClassificationCounts"] | {"Suspect": 2}

    @pytest.mark.parametrize(
        "fault",
        [{"kind": "tile"}, {"parent_id": "a"}, {"metadata": {}}, {"geometry": None}, {"geometry": shapely.Point(1, 1)}],
        ids=str,
    )
    def test_what_is_none_of_ours_is_refused(self, fault: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="not an area of ours"):
            replace(NOTHING, annotations=[replace(drawn()[0], **fault)])


class TestLeftAlone:
    @pytest.fixture(autouse=True)
    def _nothing_is_written(self, project: Project) -> Iterator[None]:
        yield
        assert contents(project.folder) == self.expected

    def _expect(self, folder: Path) -> None:
        self.expected = contents(folder)

    def test_an_image_that_qupath_saved_meanwhile(self, folder: Path, project: Project) -> None:
        entry = project.entries[0]
        annotations = entry.annotations()
        shutil.copy(folder / "data" / "3" / "data.qpdata", folder / "data" / "1" / "data.qpdata")
        self._expect(folder)
        with project.writing(), pytest.raises(ChangedOnDisk) as caught:
            entry.apply(ImageUpdate([], [tiles([annotations[0].id])], {}, OURS, {}))
        assert "her2bridge restore" in caught.value.next_step

    def test_an_image_that_qupath_saves_at_the_last_moment(
        self, folder: Path, project: Project, backend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the new data were made and checked; tests/qupath/via_paquo has the other backend's."""
        if backend == "paquo":
            self._expect(folder)
            return
        entry, path = project.entries[0], folder / "data" / "1" / "data.qpdata"
        saved = (folder / "data" / "3" / "data.qpdata").read_bytes()
        original = files_backend.updated

        def meanwhile(*args: Any) -> Any:
            path.write_bytes(saved)
            return original(*args)

        monkeypatch.setattr(files_backend, "updated", meanwhile)
        with project.writing(), pytest.raises(ChangedOnDisk):
            entry.apply(ImageUpdate([], [tiles([None])], {}, OURS, {"a": "b"}))
        assert path.read_bytes() == saved
        assert "a" not in open_project(folder, "files").entries[0].metadata
        self._expect(folder)

    def test_a_data_file_of_another_version(self, folder: Path, project: Project) -> None:
        path = folder / "data" / "1" / "data.qpdata"
        path.write_bytes(path.read_bytes().replace(b"Data file version 3", b"Data file version 4", 1))
        self._expect(folder)
        entry = project.entries[0]
        assert entry.annotations()
        assert "version 4" in str(entry.read_only_reason)
        with project.writing(), pytest.raises(DataFileVersion):
            entry.apply(NOTHING)

    def test_a_project_of_a_newer_qupath(self, folder: Path, backend: str) -> None:
        path = folder / "project.qpproj"
        content = json.loads(path.read_bytes())
        path.write_text(json.dumps(content | {"version": "0.9.0"}))
        self._expect(folder)
        newer = open_project(folder, backend)
        assert "0.9.0" in str(newer.entries[0].read_only_reason)
        with pytest.raises(ProjectReadOnly, match=r"0\.9\.0"), newer.writing():
            pass

    @pytest.mark.parametrize("keep", [0, 10, 500, 2000, -1])
    def test_a_damaged_data_file(self, folder: Path, project: Project, keep: int) -> None:
        path = folder / "data" / "1" / "data.qpdata"
        path.write_bytes(path.read_bytes()[:keep])
        self._expect(folder)
        with pytest.raises(DataFileDamaged) as caught:
            project.entries[0].annotations()
        assert caught.value.where == str(path)
        assert "a copy of your own" in caught.value.next_step
        path.with_name("data.qpdata.bkp").write_bytes(b"")
        self._expect(folder)
        with pytest.raises(DataFileDamaged) as caught:
            project.entries[0].annotations()
        assert "data.qpdata.bkp" in caught.value.next_step
        assert project.entries[1].annotations() is not None

    def test_a_qupath_that_died_as_it_saved(self, folder: Path, project: Project) -> None:
        path = folder / "data" / "1" / "data.qpdata"
        path.rename(path.with_name("data.qpdata.bkp"))
        self._expect(folder)
        with pytest.raises(DataFileDamaged, match="backup"):
            project.entries[0].annotations()

    def test_a_project_that_another_writes(self, folder: Path, project: Project) -> None:
        (folder / "her2bridge").mkdir()
        (folder / "her2bridge" / "lock").write_text("1\nanother-host\n")
        self._expect(folder)
        with pytest.raises(ProjectLocked), project.writing():
            pass

    def test_a_project_file_that_cannot_be_written_undoes_the_data(self, folder: Path, project: Project) -> None:
        entry = project.entries[0]
        before = everything(entry)
        original = project.path.read_bytes()
        backup = project.path.with_name("project.qpproj.backup")
        backup.mkdir()  # so that the old project cannot be kept, and the new one not be written
        (backup / "file").write_bytes(b"")
        with project.writing(), pytest.raises(WriteFailed):
            entry.apply(ImageUpdate([], [tiles([None])], {}, OURS, {"a": "b"}))
        shutil.rmtree(backup)
        assert project.path.read_bytes() == original
        assert everything(open_project(folder, "files").entries[0]) == before
        self._expect(folder)


def test_comparable_tells_objects_apart() -> None:
    one = PathObject("annotation", "a", None)
    assert _comparable(one) != _comparable(replace(one, measurements={"a": float("nan")}))
    assert _comparable(one) != _comparable(replace(one, locked=True))
