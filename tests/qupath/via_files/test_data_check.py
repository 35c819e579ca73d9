"""The checks before a file is written can fail: each is shown a file in which one thing is not as it should be."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FIXTURES

from her2bridge.errors import DataFileDamaged
from her2bridge.qupath.seam import ImageUpdate
from her2bridge.qupath.via_files import data_update
from her2bridge.qupath.via_files.data_check import check_measurements, check_ours, check_rest
from her2bridge.qupath.via_files.data_file import DataFile
from her2bridge.qupath.via_files.data_update import updated
from her2bridge.qupath.via_files.java_nodes import Node, Object, StreamError
from her2bridge.qupath.via_files.java_runs import Run
from her2bridge.qupath.via_files.java_writer import Writer

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_seam import NEW_ID, drawn, tiles

CORE = FIXTURES / "her2_cores" / "analysis" / "data" / "1" / "data.qpdata"
OBJECTS = FIXTURES / "qupath_objects" / "qupath_0_6_0" / "data" / "1" / "data.qpdata"
NAMES = frozenset({"HER2: tumour tiles"})


def spoilt(file: DataFile, old: bytes, new: bytes) -> DataFile:
    """The file with one thing said otherwise, at the same length."""
    assert len(old) == len(new)
    assert old in file.data
    return DataFile(file.data.replace(old, new, 1), file.where)


def update_of(file: DataFile, count: int = 12) -> ImageUpdate:
    region = file.annotations()[0].id
    return ImageUpdate([], [tiles([region], count)], {region: {"HER2: tumour tiles": 3.0}}, NAMES, {})


def nothing(_: DataFile) -> ImageUpdate:
    return ImageUpdate([], [], {}, NAMES, {})


class TestOurs:
    def test_as_wanted(self) -> None:
        before = DataFile.read(CORE)
        update = update_of(before)
        after = updated(before, update)
        check_ours(before, after, update)
        assert check_measurements(before, after, update) == set(update.region_measurements)
        check_rest(before, after, update)

    @pytest.mark.parametrize("wanted", [nothing, lambda file: update_of(file, 13), lambda file: update_of(file, 11)])
    def test_other_tiles(self, wanted: Callable[[DataFile], ImageUpdate]) -> None:
        before = DataFile.read(CORE)
        after = updated(before, update_of(before))
        with pytest.raises(StreamError, match=r"tiles? "):
            check_ours(before, after, wanted(before))

    def test_a_tile_of_another_class_or_id(self) -> None:
        before = DataFile.read(CORE)
        update = update_of(before)
        after = updated(before, update)
        own_id = update.tiles[0].ids[3].encode()
        for old, new in ((b"Noise*", b"Noises"), (own_id, b"6a0e1f0c-8d0f-4f8e-9a57-0f2f6f1d8a11")):
            with pytest.raises(StreamError, match="another tile"):
                check_ours(before, spoilt(after, old, new), update)

    def test_a_tile_that_lies_elsewhere(self) -> None:
        before = DataFile.read(CORE)
        update = update_of(before)
        after = updated(before, update)
        corner = float(update.tiles[0].bounds()[5, 2])
        beside = struct.pack(">d", corner * (1 + 1e-9))
        with pytest.raises(StreamError, match="lie elsewhere"):
            check_ours(before, spoilt(after, struct.pack(">d", corner), beside), update)


class TestMeasurements:
    def test_of_a_name_or_number_that_was_not_asked_for(self) -> None:
        before = DataFile.read(CORE)
        update = update_of(before)
        after = updated(before, update)
        with pytest.raises(StreamError, match="other measurements"):
            check_measurements(before, spoilt(after, b"HER2: tumour tiles", b"HER2: tumour tilez"), update)
        region = next(iter(update.region_measurements))
        other = ImageUpdate([], update.tiles, {region: {"HER2: tumour tiles": 4.0}}, NAMES, {})
        with pytest.raises(StreamError, match="other measurements"):
            check_measurements(before, after, other)


def with_annotations(before: DataFile) -> tuple[DataFile, ImageUpdate]:
    """A file that has two marked annotations, a person's own below the first, and the update that made the two."""
    update = ImageUpdate([], [], {}, NAMES, {}, drawn())
    after = updated(before, update)
    own = replace(drawn()[0], id=NEW_ID, metadata={}, name="a reader's")
    objects = data_update.Objects(data_update.Maker(after.nodes))
    below: dict[str | None, list[Object | Run]] = {drawn()[0].id: [objects.annotation(own)]}
    edited = data_update._Edit(data_update._Gone({}, set()), below, lambda _, node: node).of(after.root)
    return DataFile(Writer(len(after.nodes), edited).stream(after.items), after.where), update


class TestAnnotations:
    @pytest.mark.parametrize("path", [CORE, OBJECTS])
    def test_what_a_person_put_below_one_takes_its_place(self, path: Path) -> None:
        before = DataFile.read(path)
        there, _ = with_annotations(before)
        assert {one.id: one.parent_id for one in there.annotations()}[NEW_ID] == drawn()[0].id
        removal = ImageUpdate([drawn()[0].id], [], {}, NAMES, {})
        after = updated(there, removal)
        (own,) = [one for one in after.annotations() if one.id == NEW_ID]
        assert (own.parent_id, own.name) == (None, "a reader's")
        assert len(after.annotations()) == len(before.annotations()) + 2
        check_ours(there, after, removal)
        check_measurements(there, after, removal)
        check_rest(there, after, removal)
        with pytest.raises(StreamError, match="number of annotations"):
            check_rest(there, after, nothing(there))

    def test_a_new_one_that_is_not_as_wanted(self) -> None:
        before = DataFile.read(CORE)
        update = ImageUpdate([], [], {}, NAMES, {}, drawn())
        after = updated(before, update)
        check_ours(before, after, update)
        for old, new in ((b"Suspect", b"suspect"), (b"label 1+, model 3+", b"label 1+, model 2+")):
            with pytest.raises(StreamError, match="is another"):
                check_ours(before, spoilt(after, old, new), update)
        corner = struct.pack(">d", 364.46)
        with pytest.raises(StreamError, match="lies elsewhere"):
            check_ours(before, spoilt(after, corner, struct.pack(">d", 364.5)), update)
        with pytest.raises(StreamError, match="other annotations"):
            check_ours(before, after, replace(update, annotations=[*drawn(), replace(drawn()[0], id=NEW_ID)]))
        with pytest.raises(StreamError, match="number of annotations"):
            check_measurements(before, after, replace(update, annotations=drawn()[:1]))
        own_id = drawn()[0].id.encode()
        with pytest.raises(StreamError, match="other annotations"):
            check_ours(before, spoilt(after, own_id, NEW_ID.encode()), update)

    def test_one_that_stays_must_stay_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A marked annotation that the update does not name is held like one of a person's."""
        before, _ = with_annotations(DataFile.read(CORE))

        class Spoiling(Writer):
            calls = 0

            def stream(self, items: Iterable[Node]) -> bytes:
                Spoiling.calls += 1
                data = super().stream(items)
                return data.replace(b"model 3+", b"model 2+", 1) if Spoiling.calls == 1 else data

        monkeypatch.setattr(data_update, "Writer", Spoiling)
        with pytest.raises(DataFileDamaged, match="check before writing"):
            updated(before, ImageUpdate([drawn()[1].id], [], {}, NAMES, {}))


class TestRest:
    def test_an_annotation_that_is_another_or_lies_elsewhere(self) -> None:
        before = DataFile.read(CORE)
        with pytest.raises(StreamError, match="is another"):
            check_rest(before, spoilt(before, b"tumour region", b"Tumour region"), nothing(before))
        with pytest.raises(StreamError, match="is another"):
            check_rest(before, spoilt(before, b"Tumor", b"Tumos"), nothing(before))
        x = before.data.index(b"[F") + 100  # somewhere in the outline's coordinates: found by its effect
        for at in range(x, len(before.data) - 1):
            data = before.data[:at] + bytes([before.data[at] ^ 0x40]) + before.data[at + 1 :]
            try:
                check_rest(before, DataFile(data, "x"), nothing(before))
            except StreamError as error:
                if "lies elsewhere" in str(error):
                    return
            except DataFileDamaged:
                continue
        pytest.fail("no coordinate was found to move")

    def test_a_detection_of_others(self) -> None:
        before = DataFile.read(OBJECTS)
        ids = [one.id for one in before.objects() if one.kind in ("detection", "cell", "tile")]
        for one in ids:
            with pytest.raises(StreamError, match="other detections"):
                check_rest(
                    before,
                    spoilt(before, one.encode(), one[:-1].encode() + (b"0" if one[-1] != "0" else b"1")),
                    nothing(before),
                )


def test_what_is_not_as_it_was_is_never_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours in writing, anywhere in what is not ours: the new bytes are refused."""
    before = DataFile.read(CORE)

    class Spoiling(Writer):
        calls = 0

        def stream(self, items: Iterable[Node]) -> bytes:
            Spoiling.calls += 1
            data = super().stream(items)
            return data.replace(b"Set image type", b"Set image tyqe", 1) if Spoiling.calls == 1 else data

    assert b"Set image type" in before.data
    monkeypatch.setattr(data_update, "Writer", Spoiling)
    with pytest.raises(DataFileDamaged, match="check before writing"):
        updated(before, update_of(before))


def test_tiles_that_were_not_asked_for_are_never_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DataFile.read(CORE)
    original = data_update.Objects.tiles

    def fewer(self: data_update.Objects, group: object) -> object:
        return [(parent, run.select(range(len(run) - 1))) for parent, run in original(self, group)]  # type: ignore[arg-type]

    monkeypatch.setattr(data_update.Objects, "tiles", fewer)
    with pytest.raises(DataFileDamaged, match="tiles instead of 12"):
        updated(before, update_of(before))
