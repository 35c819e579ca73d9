"""The whole way: a project with a synthetic slide is scored, scored again, changed, spoilt and restored."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from conftest import FIXTURES, contents, redrawn
from shapely.geometry import box

from her2bridge import events as ev
from her2bridge.demo import Demo, compare_with_truth
from her2bridge.errors import BundleNotFound, DeviceUnavailable, ProjectReadOnly, UsageError
from her2bridge.qupath.earlier_tiles import corrected_rows
from her2bridge.qupath.geojson import read_tiles
from her2bridge.qupath.open import open_project
from her2bridge.qupath.results import METADATA_KEYS, PROBABILITY_NAMES, REGION_MEASUREMENTS
from her2bridge.qupath.seam import Entry, ImageUpdate, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import Specimen
from her2bridge.restore import restore_project
from her2bridge.run import run_project
from her2bridge.scoring import ScoreSettings
from her2bridge.settings import RunSettings

E = TypeVar("E", bound=ev.Event)
FEW = ScoreSettings(min_tumour_tiles=5, min_tumour_mm2=0.0)
CPU = RunSettings(device="cpu", runtime="torch", precision="fp32", scores=FEW)


def run(path: Path, settings: RunSettings = CPU) -> list[ev.Event]:
    heard: list[ev.Event] = []
    finished = run_project(path, settings, heard.append)
    assert heard[-1] is finished
    return heard


def only(heard: Sequence[ev.Event], kind: type[E]) -> E:
    (event,) = [event for event in heard if isinstance(event, kind)]
    return event


def warnings(heard: Sequence[ev.Event]) -> str:
    return "\n".join(event.message for event in heard if isinstance(event, ev.Warned))


def entry_of(demo: Demo) -> Entry:
    (entry,) = open_project(demo.project, "files").entries
    return entry


def edit(demo: Demo, update: ImageUpdate) -> None:
    """Change the project as a person with QuPath might."""
    project = open_project(demo.project, "files")
    with project.writing():
        project.entries[0].apply(update)


def reclassify(demo: Demo, row: int, name: str) -> str:
    """Give one stored tile another class, as a person does in QuPath; returns its id."""
    stored = entry_of(demo).stored_tiles()
    x0, y0, x1, _ = stored.bounds[row]
    tile = NewTiles(
        origins=np.array([[x0, y0]]),
        side=x1 - x0,
        parents=np.array([0]),
        parent_ids=[None],
        classes=np.array([0]),
        path_classes=[PathClassRef((name,), (1, 2, 3))],
        measurement_names=PROBABILITY_NAMES,
        measurements=np.array([[stored.measurements[p][row] for p in PROBABILITY_NAMES]], dtype=np.float32),
        mark=stored.run_ids[row],
        ids=[stored.ids[row]],
    )
    edit(demo, ImageUpdate([stored.ids[row]], [tile], {}, frozenset(), {}))
    return stored.ids[row]


class TestFirstRun:
    def test_everything_is_written_and_agrees(self, demo: Demo) -> None:
        before = {one.id: one for one in entry_of(demo).objects()}
        heard = run(demo.project)
        scored = only(heard, ev.ImageScored)
        assert only(heard, ev.RunFinished).scored == 1
        entry = entry_of(demo)
        assert tuple(key for key in entry.metadata if key.startswith("HER2 AI")) == METADATA_KEYS
        assert entry.metadata["Specimen"] == "resection"
        objects = list(entry.objects())
        tiles = [one for one in objects if one.kind == "tile"]
        assert len(tiles) == sum(scored.counts.values()) == len(entry.stored_tiles())
        names = Counter(str(tile.path_class) for tile in tiles)
        written = ("Negative", "1+", "2+", "3+", "Normal", "Noise*")
        assert [names[name] for name in written] == list(scored.counts.values())
        for share, name in (("0", "Negative"), ("1+", "1+"), ("2+", "2+"), ("3+", "3+")):
            percent = 100 * names[name] / scored.tumour_tiles
            assert entry.metadata[f"HER2 AI % tiles {share}"] == f"{percent:.1f}"
        self._regions_agree(scored, objects)
        for one in objects:
            if one.id in before:
                assert one.geometry is not None
                assert one.geometry.equals(before[one.id].geometry)
                assert (one.name, one.path_class) == (before[one.id].name, before[one.id].path_class)
        assert {one.id for one in objects} == set(before) | {tile.id for tile in tiles}

    def test_profile_tells_where_the_time_went(self, demo: Demo) -> None:
        heard = run(demo.project, replace(CPU, profile=True))
        timed, scored = only(heard, ev.ImageTimed), only(heard, ev.ImageScored)
        assert heard.index(timed) + 1 == heard.index(scored)
        assert timed.tiles == sum(scored.counts.values())
        assert sum(timed.stages.values()) == pytest.approx(timed.seconds)
        assert timed.seconds == pytest.approx(scored.seconds, abs=0.1)
        stages = ("reading the project", "getting the network ready", "waiting for pixels", "classifying", "writing")
        assert all(timed.stages[stage] > 0 for stage in stages)
        assert timed.decoding_seconds > 0
        assert timed.cores_busy > 0

    @staticmethod
    def _regions_agree(scored: ev.ImageScored, objects: list[PathObject]) -> None:
        """QuPath counts a tile in every region that holds its centre; the measurements say the same."""
        tiles = [one for one in objects if one.kind == "tile"]
        assert len(scored.regions) == 4
        for region in scored.regions:
            (annotation,) = [one for one in objects if one.id == region["id"]]
            assert annotation.geometry is not None
            inside = [t for t in tiles if t.geometry is not None and annotation.geometry.covers(t.geometry.centroid)]
            assert len(inside) == sum(region["counts"].values())
            tumour = sum(str(t.path_class) in ("Negative", "1+", "2+", "3+") for t in inside)
            assert annotation.measurements["HER2: tumour tiles"] == tumour
            assert all(t.parent_id == annotation.id for t in inside)  # these regions do not overlap
            assert set(annotation.measurements) <= set(REGION_MEASUREMENTS)

    def test_a_tile_says_what_the_network_saw(self, demo: Demo) -> None:
        run(demo.project)
        stored = entry_of(demo).stored_tiles()
        probabilities = np.stack([stored.measurements[name] for name in PROBABILITY_NAMES], axis=1)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert not corrected_rows(stored).any()
        assert len(set(stored.run_ids)) == 1

    def test_the_drawn_classes_are_found(self, demo: Demo) -> None:
        run(demo.project)
        comparison = compare_with_truth(demo)
        assert comparison.confusion.sum() >= 5  # on so small a slide most tiles lie across two areas
        assert comparison.agreement >= 0.8

    def test_class_colours_join_the_projects(self, demo: Demo) -> None:
        classes = demo.project.parent / "classifiers" / "classes.json"
        content = json.loads(classes.read_bytes())
        content["pathClasses"].append({"name": "3+", "color": -16711936})
        classes.write_text(json.dumps(content))
        old = [one["name"] for one in content["pathClasses"]]
        run(demo.project)
        known = {str(one): one.rgb for one in open_project(demo.project, "files").path_classes}
        assert list(known)[: len(old)] == old
        assert known["3+"] == (0, 255, 0)
        assert known["2+"] == (255, 187, 62)
        of_tiles = {one.path_class.rgb for one in entry_of(demo).objects() if str(one.path_class) == "3+"}
        assert of_tiles <= {(0, 255, 0)}

    def test_prefix(self, demo: Demo) -> None:
        run(demo.project, replace(CPU, class_prefix="HER2"))
        assert {str(name).split(": ")[0] for name in entry_of(demo).stored_tiles().class_names} == {"HER2"}

    def test_whole_slide(self, demo: Demo) -> None:
        scored = only(run(demo.project, replace(CPU, whole_slide=True)), ev.ImageScored)
        assert any("whole slide" in reason for reason in scored.review)
        objects = list(entry_of(demo).objects())
        assert {one.parent_id for one in objects if one.kind == "tile"} == {None}
        assert not any(one.measurements for one in objects if one.kind == "annotation")

    def test_not_assessable(self, demo: Demo) -> None:
        strict = replace(CPU, scores=ScoreSettings(min_tumour_tiles=10_000))
        scored = only(run(demo.project, strict), ev.ImageScored)
        assert scored.score == "Not assessable"
        assert entry_of(demo).metadata["HER2 AI % tiles 0"] == ""


class TestAgain:
    def test_what_stands_is_skipped_and_nothing_is_written(self, demo: Demo) -> None:
        run(demo.project)
        before = contents(demo.project.parent)
        heard = run(demo.project)
        assert "same model, settings and regions" in only(heard, ev.ImageSkipped).reason
        assert not [event for event in heard if isinstance(event, ev.RuntimeChosen)]
        assert contents(demo.project.parent) == before

    def test_force_leaves_no_duplicates(self, demo: Demo) -> None:
        run(demo.project)
        first = entry_of(demo).stored_tiles()
        only(run(demo.project, replace(CPU, force=True)), ev.ImageScored)
        second = entry_of(demo).stored_tiles()
        assert len(second) == len(first)
        assert not set(second.ids) & set(first.ids)
        assert sorted(second.class_names, key=str) == sorted(first.class_names, key=str)

    @pytest.mark.parametrize(
        "other",
        [{"specimen": Specimen.BIOPSY}, {"class_prefix": "HER2"}, {"scores": ScoreSettings(min_tumour_tiles=6)}],
    )
    def test_other_settings_score_anew(self, demo: Demo, other: dict[str, object]) -> None:
        run(demo.project)
        heard = run(demo.project, replace(CPU, **other))  # type: ignore[arg-type]
        assert only(heard, ev.ImageScored)
        assert "other model or settings" in warnings(heard)

    def test_other_batches_do_not(self, demo: Demo) -> None:
        run(demo.project)
        assert only(run(demo.project, replace(CPU, batch_size=3)), ev.ImageSkipped)

    def test_regions_that_are_gone_leave_a_stale_score(self, demo: Demo, tmp_path: Path) -> None:
        run(demo.project)
        heard = run(_without_regions(demo, tmp_path / "bare").project)
        assert only(heard, ev.ImageFailed).error == "NoRegions"
        assert "STALE: the project still shows the score" in warnings(heard)

    def test_the_order_of_regions_is_no_matter(self, demo: Demo, tmp_path: Path) -> None:
        run(demo.project)
        assert only(run(redrawn(demo, tmp_path / "turned", reverse=True, by=0).project), ev.ImageSkipped)

    def test_a_redrawn_region_makes_the_score_stale(self, demo: Demo, tmp_path: Path) -> None:
        run(demo.project)
        other = redrawn(demo, tmp_path / "redrawn")
        heard = run(other.project)
        assert "STALE" in warnings(heard)
        count = len(entry_of(other).stored_tiles())
        assert count == sum(only(heard, ev.ImageScored).counts.values())
        assert count < len(entry_of(demo).stored_tiles())

    def test_other_regions_asked_for_are_no_stale_score(self, demo: Demo) -> None:
        run(demo.project)
        other = replace(CPU, exclude_classes=("Tumor: Positive",))
        heard = run(demo.project, other)
        assert "other model or settings" in warnings(heard)
        assert "STALE" not in warnings(heard)
        assert only(run(demo.project, other), ev.ImageSkipped)
        assert "other model or settings" in warnings(run(demo.project, replace(CPU, dry_run=True)))

    def test_corrections_are_kept_and_counted(self, demo: Demo) -> None:
        before = only(run(demo.project), ev.ImageScored).counts
        stored = entry_of(demo).stored_tiles()
        row = list(stored.class_names).index("Normal")
        corrected = reclassify(demo, row, "3+")
        heard = run(demo.project)
        assert "tiles were corrected" in warnings(heard)
        scored = only(heard, ev.ImageScored)
        assert scored.corrected_tiles == 1
        assert scored.counts == before | {"3+": before["3+"] + 1, "normal": before["normal"] - 1}
        assert "tiles that count as a person classed them: 1" in scored.review
        assert "as a person classed them: 1" in entry_of(demo).metadata["HER2 AI review"]
        again = entry_of(demo).stored_tiles()
        assert len(again) == len(stored)
        assert again.class_names[list(again.ids).index(corrected)] == "3+"
        assert only(run(demo.project), ev.ImageSkipped)

    def test_deleted_tiles_come_back(self, demo: Demo) -> None:
        run(demo.project)
        stored = entry_of(demo).stored_tiles()
        edit(demo, ImageUpdate(list(stored.ids[:3]), [], {}, frozenset(), {}))
        assert len(entry_of(demo).stored_tiles()) == len(stored) - 3
        run(demo.project)
        assert len(entry_of(demo).stored_tiles()) == len(stored)


class TestNothingElseIsTouched:
    def test_a_users_own_names(self, demo: Demo) -> None:
        region = next(one.id for one in entry_of(demo).annotations())
        mine = {"HER2: my remark": 7.0, "Area": 1.5}
        keys = {"HER2 AI review": "seen by me", "Case": "7"}
        edit(demo, ImageUpdate([], [], {region: mine}, frozenset(), keys))
        for settings in (CPU, replace(CPU, force=True)):
            heard = run(demo.project, settings)
            assert "HER2 AI review" in warnings(heard)
        entry = entry_of(demo)
        (annotation,) = [one for one in entry.annotations() if one.id == region]
        assert annotation.measurements.items() >= mine.items()
        assert "HER2: tumour tiles" in annotation.measurements
        assert entry.metadata.items() >= keys.items()
        assert entry.metadata["HER2 AI score"]

    def test_measurements_leave_a_region_that_is_none_any_more(self, demo: Demo) -> None:
        run(demo.project)
        run(demo.project, replace(CPU, whole_slide=True))
        assert not any(set(one.measurements) & set(REGION_MEASUREMENTS) for one in entry_of(demo).annotations())

    def test_dry_run_writes_nothing(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        planned = only(run(demo.project, replace(CPU, dry_run=True)), ev.ImagePlanned)
        assert planned.tiles > 20
        assert planned.regions == 4
        assert contents(demo.project.parent) == before


class TestErrors:
    def test_settings_that_cannot_be(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        with pytest.raises(UsageError, match="no image called"):
            run(demo.project, replace(CPU, images=("nowhere",)))
        with pytest.raises(BundleNotFound):
            run(demo.project, replace(CPU, model="nowhere"))
        assert contents(demo.project.parent) == before

    def test_one_bad_image_stops_no_other(self, demo: Demo, tmp_path: Path) -> None:
        path = _two_images(demo, tmp_path)
        (tmp_path / "copy.tif").unlink()
        heard = run(path)
        failed, scored = only(heard, ev.ImageFailed), only(heard, ev.ImageScored)
        assert (failed.image, scored.image) == ("first", "second")
        assert failed.error == "SlideNotFound"
        assert "--relocate" in failed.next_step
        assert only(heard, ev.RunFinished).failed == 1
        first, second = open_project(path, "files").entries
        assert not len(first.stored_tiles())
        assert len(second.stored_tiles())

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
    def test_a_gpu_that_is_required_concerns_the_run(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        with pytest.raises(DeviceUnavailable, match="No GPU is here"):
            run(demo.project, RunSettings(require_gpu=True))
        assert contents(demo.project.parent) == before

    def test_no_regions(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        failed = only(run(demo.project, replace(CPU, region_classes=("Stroma",))), ev.ImageFailed)
        assert failed.error == "NoRegions"
        assert "Tumor (4)" in failed.next_step
        assert contents(demo.project.parent) == before

    def test_the_unforeseen_is_told_and_logged(
        self, demo: Demo, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = _two_images(demo, tmp_path)
        heard: list[ev.Event] = []

        def emit(event: ev.Event) -> None:
            heard.append(event)
            if isinstance(event, ev.ImageStarted) and event.image == "first":
                raise ZeroDivisionError("a bug")

        finished = run_project(path, CPU, emit)
        assert (finished.failed, finished.scored) == (1, 1)
        assert "did not foresee" in only(heard, ev.ImageFailed).what
        assert "ZeroDivisionError" in caplog.text
        assert "Traceback" in caplog.text

    def test_an_image_that_is_removed_meanwhile_stops_no_other(self, demo: Demo, tmp_path: Path) -> None:
        path = _two_images(demo, tmp_path)
        heard: list[ev.Event] = []

        def emit(event: ev.Event) -> None:
            heard.append(event)
            if isinstance(event, ev.Progress) and event.image == "first" and event.done == event.total:
                content = json.loads(path.read_bytes())
                content["images"] = [image for image in content["images"] if image["imageName"] != "first"]
                path.write_text(json.dumps(content))

        finished = run_project(path, CPU, emit)
        assert (finished.scored, finished.failed) == (1, 1)
        failed = only(heard, ev.ImageFailed)
        assert (failed.image, failed.error) == ("first", "ChangedOnDisk")

    def test_ctrl_c_while_writing_leaves_the_image_as_it_was(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        from her2bridge.qupath.project_json import ProjectJson

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        data = demo.project.parent / "data" / "1" / "data.qpdata"
        before = data.read_bytes()
        monkeypatch.setattr(ProjectJson, "set_metadata", interrupt)
        assert run_project(demo.project, CPU).interrupted
        assert data.read_bytes() == before

    def test_two_regions_of_one_id(self, demo: Demo, tmp_path: Path) -> None:
        size = (demo.truth.width, demo.truth.height)
        twins = [_annotation(1, 300, 300, 1500, 900), _annotation(1, 300, 1000, 1500, 1600)]
        image = NewImage(demo.slide, "twins", size=size, mpp=0.25, annotations=twins, metadata={})
        failed = only(run(create_project(tmp_path / "twins", [image])), ev.ImageFailed)
        assert failed.error == "BadRegion"
        assert "Refresh duplicate object IDs" in failed.next_step

    def test_a_specimen_stated_twice_or_not_understood(self, demo: Demo) -> None:
        heard = run(demo.project, replace(CPU, specimen=Specimen.BIOPSY))
        assert "metadata say resection; --specimen biopsy is used" in warnings(heard)
        edit(demo, ImageUpdate([], [], {}, frozenset(), {"Specimen": "toe"}))
        assert "'toe' is neither resection nor biopsy" in warnings(run(demo.project, replace(CPU, dry_run=True)))

    def test_mpp_that_is_not_needed(self, demo: Demo) -> None:
        heard = run(demo.project, replace(CPU, mpp=0.5))
        assert "--mpp 0.5 is not used: QuPath says 0.25 µm/px" in warnings(heard)
        assert only(run(demo.project), ev.ImageSkipped)

    def test_ctrl_c_keeps_what_was_finished(self, demo: Demo, tmp_path: Path) -> None:
        path = _two_images(demo, tmp_path)

        def emit(event: ev.Event) -> None:
            if isinstance(event, ev.Progress) and event.image == "second":
                raise KeyboardInterrupt

        finished = run_project(path, CPU, emit)
        assert (finished.scored, finished.interrupted) == (1, True)
        first, second = open_project(path, "files").entries
        assert len(first.stored_tiles())
        assert not len(second.stored_tiles())
        assert not (path.parent / "her2bridge" / "lock").exists()

    def test_a_project_of_the_future_is_left_alone(self, demo: Demo) -> None:
        text = demo.project.read_text()
        newer = json.loads(text)["version"]
        demo.project.write_text(text.replace(f'"version": "{newer}"', '"version": "9.0.0"', 1))
        before = contents(demo.project.parent)
        heard = run(demo.project)
        scored = only(heard, ev.ImageScored)
        after = contents(demo.project.parent)
        assert {name: data for name, data in after.items() if not name.startswith("her2bridge")} == before
        side = Path(scored.written_to)
        assert json.loads(side.read_bytes())["metadata"]["HER2 AI score"] == scored.score
        tiles = read_tiles(side.with_suffix(".geojson.gz"))
        assert sum(map(len, tiles)) == sum(scored.counts.values())
        with pytest.raises(ProjectReadOnly):
            restore_project(demo.project)

    def test_slides_of_a_moved_project_that_are_gone(self, tmp_path: Path) -> None:
        folder = tmp_path / "moved"
        shutil.copytree(FIXTURES / "her2_cores" / "analysis", folder)
        before = contents(folder)
        heard = run(folder)
        failed = [event for event in heard if isinstance(event, ev.ImageFailed)]
        assert [event.error for event in failed] == ["SlideNotFound"] * 5
        assert all("--relocate" in event.next_step for event in failed)
        assert heard[1] == ev.Warned(None, only(heard, ev.Warned).message)
        listed = only(heard, ev.Warned).message
        assert listed.startswith("5 slides were not found: core_0.tif, core_1.tif")
        assert '--relocate "/slides/her2_cores/images=NEW"' in listed
        assert contents(folder) == before


class TestRestore:
    def test_after_qupath_wrote_over_the_results(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        scored = only(run(demo.project), ev.ImageScored)
        first = entry_of(demo).stored_tiles()
        for name, data in before.items():
            (demo.project.parent / name).write_bytes(data)
        assert not len(entry_of(demo).stored_tiles())
        heard: list[ev.Event] = []
        assert restore_project(demo.project, emit=heard.append).restored == 1
        entry, restored = entry_of(demo), entry_of(demo).stored_tiles()
        assert sorted(restored.ids) == sorted(first.ids)
        assert {key: entry.metadata[key] for key in METADATA_KEYS} == scored.metadata
        assert any(one.measurements for one in entry.annotations())
        assert only(run(demo.project), ev.ImageSkipped)
        assert restore_project(demo.project).restored == 0

    def test_newer_results_are_not_replaced(self, demo: Demo) -> None:
        run(demo.project)
        later = entry_of(demo).metadata["HER2 AI run"].replace(" | 20", " | 21", 1)
        edit(demo, ImageUpdate([], [], {}, frozenset(), {"HER2 AI run": "ffffffffffff" + later[12:]}))
        heard: list[ev.Event] = []
        assert restore_project(demo.project, emit=heard.append).restored == 0
        assert "newer results" in only(heard, ev.ImageSkipped).reason

    def test_stale_results_are_called_so(self, demo: Demo, tmp_path: Path) -> None:
        run(demo.project)
        other = redrawn(demo, tmp_path / "redrawn", restored=False)
        heard: list[ev.Event] = []
        assert restore_project(other.project, emit=heard.append).restored == 1
        assert "STALE" in warnings(heard)

    def test_files_of_two_runs_are_no_results(self, demo: Demo) -> None:
        run(demo.project)
        tiles = next((demo.project.parent / "her2bridge" / "results").glob("*.gz"))
        before = tiles.read_bytes()
        run(demo.project, replace(CPU, force=True))
        tiles.write_bytes(before)
        heard: list[ev.Event] = []
        assert restore_project(demo.project, emit=heard.append).failed == 1
        assert "of another run" in only(heard, ev.ImageFailed).what

    def test_results_that_the_project_lost_are_pointed_out(self, demo: Demo) -> None:
        before = contents(demo.project.parent)
        run(demo.project)
        for name, data in before.items():
            (demo.project.parent / name).write_bytes(data)
        assert "her2bridge restore brings them back" in warnings(run(demo.project, replace(CPU, dry_run=True)))

    def test_corrections_made_since_stay(self, demo: Demo) -> None:
        run(demo.project)
        count = len(entry_of(demo).stored_tiles())
        corrected = reclassify(demo, 0, "Stroma")
        assert restore_project(demo.project).restored == 1
        stored = entry_of(demo).stored_tiles()
        assert len(stored) == count
        assert stored.class_names[list(stored.ids).index(corrected)] == "Stroma"

    def test_an_image_without_results(self, demo: Demo) -> None:
        heard: list[ev.Event] = []
        assert restore_project(demo.project, emit=heard.append).restored == 0
        assert "no results of an earlier run lie in" in warnings(heard)
        with pytest.raises(UsageError):
            restore_project(demo.project, images=("nowhere",))


def _annotation(number: int, x0: float, y0: float, x1: float, y1: float) -> PathObject:
    tumor = PathClassRef(("Tumor",), (200, 0, 0))
    return PathObject(
        "annotation", f"00000000-0000-4000-8000-{number:012d}", None, None, tumor, None, box(x0, y0, x1, y1)
    )


def _two_images(demo: Demo, tmp_path: Path) -> Path:
    """A project over two slides of one content: ``first`` at tmp_path/copy.tif, ``second`` where the demo's lies."""
    shutil.copyfile(demo.slide, tmp_path / "copy.tif")
    size = (demo.truth.width, demo.truth.height)
    regions = [_annotation(1, 300, 300, 1500, 900)]
    first = NewImage(path=tmp_path / "copy.tif", name="first", size=size, mpp=0.25, annotations=regions, metadata={})
    return create_project(tmp_path / "two", [first, replace(first, path=demo.slide, name="second")])


def _without_regions(demo: Demo, folder: Path) -> Demo:
    """The same project and score, after a person took every Tumor region away."""
    entry = entry_of(demo)
    rest = [replace(one, measurements={}) for one in entry.annotations() if str(one.path_class) != "Tumor"]
    size = (demo.truth.width, demo.truth.height)
    image = NewImage(demo.slide, entry.name, size=size, mpp=0.25, annotations=rest, metadata=dict(entry.metadata))
    return replace(demo, project=create_project(folder, [image]))
