"""Runs that classify only some regions anew, and runs that compute the score from the tiles that are there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import redrawn
from test_run import CPU, edit, entry_of, only, reclassify, run, warnings

from her2bridge import events as ev
from her2bridge.demo import Demo
from her2bridge.errors import NoEarlierScore
from her2bridge.qupath import results
from her2bridge.qupath.seam import ImageUpdate
from her2bridge.qupath.side_files import read_side_files
from her2bridge.run import UNKNOWN_MODEL
from her2bridge.scope import scope_of
from her2bridge.settings import RunSettings

AGAIN = replace(CPU, recalculate=True)


def region_ids(demo: Demo) -> list[str]:
    """The demo's tumour regions, in the project's order."""
    return [one.id for one in entry_of(demo).annotations() if one.path_class and one.path_class.names[0] == "Tumor"]


def tiles_by_region(demo: Demo) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for one in entry_of(demo).objects():
        if one.kind == "tile":
            found.setdefault(one.parent_id, set()).add(one.id)
    return found


def stripped(demo: Demo) -> dict[str, str]:
    """The metadata without the run's id and time."""
    metadata = dict(entry_of(demo).metadata)
    return metadata | {results.RUN: metadata[results.RUN].split(" | ", 2)[2]}


class TestSelected:
    def test_a_first_run_of_one_region_scores_that_region(self, demo: Demo) -> None:
        first, *_ = region_ids(demo)
        scored = only(run(demo.project, replace(CPU, selected=(first,))), ev.ImageScored)
        assert [region["id"] for region in scored.regions] == [first]
        assert set(tiles_by_region(demo)) == {first}
        measured = {one.id for one in entry_of(demo).annotations() if one.measurements}
        assert measured == {first}

    def test_region_after_region_is_the_whole(self, demo: Demo, tmp_path: Path) -> None:
        twin = Demo(shutil.copytree(demo.project.parent, tmp_path / "twin") / demo.project.name, demo.slide, demo.truth)
        run(twin.project)
        for one in region_ids(demo):
            scored = only(run(demo.project, replace(CPU, selected=(one,))), ev.ImageScored)
        assert stripped(demo) == stripped(twin)
        assert sum(scored.counts.values()) == len(entry_of(twin).stored_tiles())
        assert only(run(demo.project), ev.ImageSkipped)

    def test_other_regions_keep_their_tiles_and_count(self, demo: Demo) -> None:
        whole = only(run(demo.project), ev.ImageScored)
        before = tiles_by_region(demo)
        first, *others = region_ids(demo)
        heard = run(demo.project, replace(CPU, selected=(first,)))
        assert only(heard, ev.ImageScored).counts == whole.counts
        assert only(heard, ev.ImageStarted).tiles == len(before[first])
        after = tiles_by_region(demo)
        assert {one: after[one] for one in others} == {one: before[one] for one in others}
        assert not after[first] & before[first]
        assert only(run(demo.project), ev.ImageSkipped)

    def test_a_run_of_all_is_not_skipped_after_a_run_of_one(self, demo: Demo) -> None:
        run(demo.project, replace(CPU, selected=(region_ids(demo)[0],)))
        heard = run(demo.project)
        assert len(only(heard, ev.ImageScored).regions) == 4
        assert "other model or settings" in warnings(heard)

    def test_a_region_that_is_none_is_refused(self, demo: Demo) -> None:
        failed = only(run(demo.project, replace(CPU, selected=("1111-1111",))), ev.ImageFailed)
        assert failed.error == "NoRegions"

    def test_tiles_of_another_model_are_not_mixed(self, demo: Demo) -> None:
        run(demo.project)
        edit(demo, ImageUpdate([], [], {}, frozenset(), {results.MODEL: "another 0123456789ab"}))
        failed = only(run(demo.project, replace(CPU, selected=(region_ids(demo)[0],))), ev.ImageFailed)
        assert failed.error == "NoEarlierScore"
        assert "another 0123456789ab" in failed.what


class TestRecalculate:
    def test_without_changes_nothing_is_written(self, demo: Demo) -> None:
        run(demo.project)
        assert only(run(demo.project, AGAIN), ev.ImageSkipped)

    def test_it_is_what_was_scored_and_loads_no_network(self, demo: Demo) -> None:
        before = only(run(demo.project), ev.ImageScored)
        tiles, metadata = tiles_by_region(demo), stripped(demo)
        heard = run(demo.project, replace(AGAIN, force=True))
        assert only(heard, ev.ImageScored).counts == before.counts
        assert not [event for event in heard if isinstance(event, ev.RuntimeChosen | ev.Progress)]
        assert (tiles_by_region(demo), stripped(demo)) == (tiles, metadata)

    def test_corrections_count(self, demo: Demo) -> None:
        before = only(run(demo.project), ev.ImageScored).counts
        reclassify(demo, list(entry_of(demo).stored_tiles().class_names).index("Normal"), "3+")
        scored = only(run(demo.project, AGAIN), ev.ImageScored)
        assert scored.counts == before | {"3+": before["3+"] + 1, "normal": before["normal"] - 1}
        assert scored.corrected_tiles == 1
        assert only(run(demo.project), ev.ImageSkipped)

    def test_deleted_tiles_count_no_more(self, demo: Demo) -> None:
        run(demo.project)
        stored = entry_of(demo).stored_tiles()
        edit(demo, ImageUpdate(list(stored.ids[:3]), [], {}, frozenset(), {}))
        scored = only(run(demo.project, AGAIN), ev.ImageScored)
        assert sum(scored.counts.values()) == len(stored) - 3
        assert len(entry_of(demo).stored_tiles()) == len(stored) - 3

    def test_what_was_asked_then_is_asked_again(self, demo: Demo) -> None:
        run(demo.project, replace(CPU, exclude_classes=("Tumor: Positive",)))
        before = stripped(demo)
        assert only(run(demo.project, replace(AGAIN, force=True)), ev.ImageScored)
        assert stripped(demo) == before

    def test_whole_slide(self, demo: Demo) -> None:
        before = only(run(demo.project, replace(CPU, whole_slide=True)), ev.ImageScored)
        again = only(run(demo.project, replace(AGAIN, force=True)), ev.ImageScored)
        assert again.counts == before.counts
        assert any("whole slide" in reason for reason in again.review)
        assert set(tiles_by_region(demo)) == {None}
        assert read_side_files(demo.project.parent, entry_of(demo).id).region_measurements == {}

    def test_tiles_of_another_model_are_refused(self, demo: Demo) -> None:
        run(demo.project)
        edit(demo, ImageUpdate([], [], {}, frozenset(), {results.MODEL: "another 0123456789ab"}))
        assert only(run(demo.project, AGAIN), ev.ImageFailed).error == "NoEarlierScore"

    def test_tiles_that_were_brought_in_are_of_no_known_model(self, demo: Demo) -> None:
        before = only(run(demo.project), ev.ImageScored)
        edit(demo, ImageUpdate([], [], {}, frozenset(), dict.fromkeys(results.METADATA_KEYS)))
        again = only(run(demo.project, AGAIN), ev.ImageScored)
        assert again.counts == before.counts
        assert entry_of(demo).metadata[results.MODEL] == UNKNOWN_MODEL
        assert only(run(demo.project, AGAIN), ev.ImageSkipped)
        some = replace(CPU, selected=(region_ids(demo)[0],))
        assert only(run(demo.project, some), ev.ImageFailed).error == "NoEarlierScore"
        assert only(run(demo.project), ev.ImageScored)

    @pytest.mark.parametrize("settings", [AGAIN, replace(AGAIN, force=True)])
    def test_an_image_without_a_score_fails(self, demo: Demo, settings: RunSettings) -> None:
        failed = only(run(demo.project, settings), ev.ImageFailed)
        assert failed.error == "NoEarlierScore"
        assert "Score the image first" in failed.next_step


class TestLooseEnds:
    """A score that is not of all that a full run would count says so, and a full run is not skipped for it."""

    def grown(self, demo: Demo, tmp_path: Path) -> Demo:
        run(demo.project)
        other = redrawn(demo, tmp_path / "grown", by=260)
        edit(other, ImageUpdate([], [], measured(demo), frozenset(), {}))
        return other

    def test_a_region_that_grew(self, demo: Demo, tmp_path: Path) -> None:
        other = self.grown(demo, tmp_path)
        heard = run(other.project, AGAIN)
        assert "places of the regions have no tile" in warnings(heard)
        assert any("no tile stands for" in reason for reason in only(heard, ev.ImageScored).review)
        assert only(run(other.project), ev.ImageScored)
        assert only(run(other.project), ev.ImageSkipped)

    def test_a_region_that_grew_beside_the_selected_one(self, demo: Demo, tmp_path: Path) -> None:
        other = self.grown(demo, tmp_path)
        heard = run(other.project, replace(CPU, selected=(region_ids(other)[1],)))
        assert "places of the regions have no tile" in warnings(heard)
        assert only(run(other.project), ev.ImageScored)

    def test_a_region_that_shrank(self, demo: Demo, tmp_path: Path) -> None:
        run(demo.project)
        other = redrawn(demo, tmp_path / "shrunk")
        edit(other, ImageUpdate([], [], measured(demo), frozenset(), {}))
        assert "lie in no region now" in warnings(run(other.project, AGAIN))
        heard = run(other.project)
        assert len(entry_of(other).stored_tiles()) == sum(only(heard, ev.ImageScored).counts.values())

    def test_another_prefix(self, demo: Demo) -> None:
        run(demo.project)
        some = replace(CPU, selected=(region_ids(demo)[0],), class_prefix="HER2")
        assert "named otherwise" in warnings(run(demo.project, some))
        assert only(run(demo.project, replace(CPU, class_prefix="HER2")), ev.ImageScored)

    def test_a_region_that_touches_a_scored_one_does_not_count(self, demo: Demo) -> None:
        """Its place holds tiles, but they are another's: it was never classified."""
        first, second, *_ = region_ids(demo)
        run(demo.project, replace(CPU, selected=(first,)))
        scored = only(run(demo.project, replace(AGAIN, force=True)), ev.ImageScored)
        assert [region["id"] for region in scored.regions] == [first]
        without = {name: value for name, value in measured(demo).items() if name != second}
        run(demo.project)
        edit(demo, ImageUpdate([], [], without, frozenset(results.REGION_MEASUREMENTS), {}))
        scored = only(run(demo.project, replace(AGAIN, force=True)), ev.ImageScored)
        assert second not in {region["id"] for region in scored.regions}

    def test_regions_that_hold_no_tile_are_no_score(self, demo: Demo) -> None:
        run(demo.project)
        moved = replace(entry_of(demo).stored_tiles(), bounds=entry_of(demo).stored_tiles().bounds + 1e6)
        with pytest.raises(NoEarlierScore, match="no tile of ours lies in a region"):
            scope_of(entry_of(demo).annotations(), moved, None, AGAIN, where="slide")


def measured(demo: Demo) -> dict[str, dict[str, float]]:
    """Our measurements on the regions, which ``redrawn`` leaves out and a person's QuPath keeps."""
    return {one.id: dict(one.measurements) for one in entry_of(demo).annotations() if one.measurements}
