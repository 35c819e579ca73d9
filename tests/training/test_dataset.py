"""A dataset on disk: what is written is read again, damage is told, and tiles come from slides or from files."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_datasets import SPEC, drawn_slide, made_dataset, made_slide, made_tiles
from PIL import Image

from her2bridge.errors import DatasetDamaged, DatasetNotFound, SizeMismatch, SlideNotFound, SlideUnreadable
from her2bridge.records import Crop, Flip, Rotate, SlideSource
from her2bridge.training import dataset as module
from her2bridge.training.dataset import (
    CARD_FILE,
    TILES_FILE,
    Dataset,
    fingerprint_of,
    load_dataset,
    read_pixels,
    save_dataset,
)

ROWS = [(0, 0.0, 0.0, "0"), (0, 16.0, 0.0, "3+"), (1, 4.0, 8.0, "noise"), (0, 8.5, 40.25, "normal")]
SPLITS = ("train", "val", "test", "train")


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Dataset, list[np.ndarray[Any, Any]]]:
    """A dataset over two pictures, and their pixels."""
    both = [drawn_slide(tmp_path / "slides" / f"{name}.png", seed=n) for n, name in enumerate("ab")]
    slides = [slide for slide, _ in both]
    return made_dataset(tmp_path / "set", slides, ROWS, splits=SPLITS), [pixels for _, pixels in both]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    views = (Crop(1, 2, 30, 40), Rotate(3), Flip(True, False))
    source = SlideSource(tmp_path / "x.svs", (50, 60), (0.25, 0.251), 2, True, views)
    slides = [
        made_slide("ä b", source=source, project=tmp_path / "p.qpproj", entry="7", mpp=0.2505),
        made_slide("plain"),
    ]
    tiles = made_tiles(ROWS, splits=SPLITS, files=("tiles/1.png", None, None, None), annotators=tuple("ABAB"))
    saved = save_dataset(tmp_path / "new" / "set", SPEC, slides, tiles, {"min_inside": 0.9}, left_out={"why": 3})
    for found in (saved, load_dataset(tmp_path / "new" / "set")):
        assert found.spec == SPEC
        assert found.slides[0] == slides[0]
        assert found.slides[1].source.path.name == "plain.png"
        assert found.tiles.slide.tolist() == [0, 0, 1, 0]
        assert found.tiles.origins.tolist() == [list(row[1:3]) for row in ROWS]
        assert found.tiles.sides.tolist() == [16.0] * 4
        assert found.tiles.labels.tolist() == [0, 3, 5, 4]
        assert (found.tiles.regions, found.tiles.annotators) == (tiles.regions, tiles.annotators)
        assert (found.tiles.splits, found.tiles.files) == (SPLITS, tiles.files)
        assert found.patients == ("patient of ä b", "patient of ä b", "patient of plain", "patient of ä b")
        assert found.card["left_out"] == {"why": 3}
        assert found.card["settings"] == {"min_inside": 0.9}
        assert found.card["counts"]["train"] == {"0": 1, "1+": 0, "2+": 0, "3+": 0, "normal": 1, "noise": 0}
        assert found.card["notice"] == "Research use only."
    assert saved.sha256 == load_dataset(saved.folder).sha256
    again = save_dataset(tmp_path / "again", SPEC, slides, tiles, {})
    assert again.sha256 == saved.sha256  # equal tables, equal bytes
    other = save_dataset(tmp_path / "again", SPEC, slides, replace(tiles, splits=("train",) * 4), {})
    assert other.sha256 != saved.sha256
    assert load_dataset(tmp_path / "again").tiles.splits == ("train",) * 4


def test_the_table_is_what_others_read(drawn: tuple[Dataset, Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(drawn[0].folder / TILES_FILE)
    names = ["slide", "patient", "x", "y", "size", "um_per_px", "label", "region", "annotator", "split", "file"]
    assert table.column_names == names
    assert table.to_pylist()[1] == {
        **{"slide": "a", "patient": "patient of a", "x": 16.0, "y": 0.0, "size": 16.0, "um_per_px": 1.0},
        **{"label": "3+", "region": "region 1", "annotator": "somebody", "split": "val", "file": None},
    }


def test_rows_and_counts() -> None:
    tiles = made_tiles(ROWS, splits=SPLITS)
    assert tiles.rows_of("train").tolist() == [0, 3]
    assert tiles.rows_of("train", "test").tolist() == [0, 2, 3]
    assert tiles.rows_of("nowhere").tolist() == []
    assert tiles.counts().tolist() == [1, 0, 0, 1, 1, 1]


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound):
        load_dataset(tmp_path)


def _card(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        card = json.loads((folder / CARD_FILE).read_text())
        (folder / CARD_FILE).write_text(json.dumps({**card, **changes}))

    return damage


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / CARD_FILE).write_text("{"), "cannot be read"),
        (lambda folder: (folder / CARD_FILE).write_text("[]"), "cannot be read"),
        (lambda folder: (folder / CARD_FILE).write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda folder: (folder / TILES_FILE).unlink(), "cannot be read"),
        (lambda folder: (folder / TILES_FILE).write_bytes(b"PAR1"), "its SHA-256 differs"),
        (lambda folder: _append(folder / TILES_FILE), "its SHA-256 differs"),
        (_card(format=2), "a later her2bridge may have written it"),
        (_card(slides=[]), "'a' is missing"),
        (_card(spec=None), "cannot be read"),
        (_card(hashes={}), "'tiles.parquet' is missing"),
    ],
)
def test_damage_is_told(drawn: tuple[Dataset, Any], damage: Callable[[Path], Any], told: str) -> None:
    damage(drawn[0].folder)
    with pytest.raises(DatasetDamaged, match=told):
        load_dataset(drawn[0].folder)


def test_a_table_that_is_none_though_its_hash_is_right(drawn: tuple[Dataset, Any]) -> None:
    from her2bridge.storage import sha256_of

    folder = drawn[0].folder
    (folder / TILES_FILE).write_bytes(b"no table")
    _card(hashes={TILES_FILE: sha256_of(b"no table")})(folder)
    with pytest.raises(DatasetDamaged):
        load_dataset(folder)


def test_pixels_are_the_slides_own(drawn: tuple[Dataset, list[np.ndarray[Any, Any]]]) -> None:
    dataset, (a, b) = drawn
    told: list[int] = []
    pixels = read_pixels(dataset, np.array([2, 1, 0]), on_progress=told.append)
    assert (pixels == [b[8:24, 4:20], a[0:16, 16:32], a[0:16, 0:16]]).all()
    assert told == [1, 2, 3]
    out = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    assert read_pixels(dataset, np.array([1]), out, workers=1) is out
    assert (out[0] == a[0:16, 16:32]).all()
    assert read_pixels(dataset, np.array([], dtype=np.int64)).shape == (0, 16, 16, 3)
    assert threading.active_count() < 10


def test_a_dataset_that_was_moved_with_its_slides(drawn: tuple[Dataset, Any], tmp_path: Path) -> None:
    dataset, _ = drawn
    before = read_pixels(dataset, np.arange(4))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("set", "slides"):
        shutil.move(tmp_path / name, moved / name)
    found = load_dataset(moved / "set")
    assert found.slides[0].source.path == moved / "slides" / "a.png"
    assert (read_pixels(found, np.arange(4)) == before).all()


def test_a_dataset_that_was_moved_alone(drawn: tuple[Dataset, Any], tmp_path: Path) -> None:
    shutil.move(tmp_path / "set", tmp_path / "far" / "away" / "set")
    found = load_dataset(tmp_path / "far" / "away" / "set")
    assert found.slides[0].source.path == tmp_path / "slides" / "a.png"


def test_slides_that_were_moved(drawn: tuple[Dataset, Any], tmp_path: Path) -> None:
    before = read_pixels(drawn[0], np.arange(4))
    shutil.move(tmp_path / "slides", tmp_path / "new place")
    dataset = load_dataset(drawn[0].folder)
    with pytest.raises(SlideNotFound):
        read_pixels(dataset, np.arange(4))
    moved = dataset.relocated([("/nowhere", "/x"), (str(tmp_path / "slides"), str(tmp_path / "new place"))])
    assert (read_pixels(moved, np.arange(4)) == before).all()
    assert dataset.relocated([("/nowhere", "/x")]).slides == dataset.slides


def test_exported_tiles_need_no_slides(drawn: tuple[Dataset, Any], tmp_path: Path) -> None:
    dataset, _ = drawn
    before = read_pixels(dataset, np.arange(4))
    files = tuple(f"tiles/{n}.png" for n in range(4))
    (dataset.folder / "tiles").mkdir()
    for name, tile in zip(files, before, strict=True):
        Image.fromarray(tile).save(dataset.folder / name)
    shutil.rmtree(tmp_path / "slides")
    tiles = replace(dataset.tiles, files=files)
    exported = save_dataset(dataset.folder, dataset.spec, dataset.slides, tiles, {})
    assert (read_pixels(exported, np.array([3, 0])) == before[[3, 0]]).all()
    Image.fromarray(before[0, :8]).save(dataset.folder / files[0])
    with pytest.raises(SlideUnreadable, match="16 × 8 px, not 16 × 16"):
        read_pixels(exported, np.array([0]))
    (dataset.folder / files[1]).write_bytes(b"no picture")
    with pytest.raises(SlideUnreadable, match="cannot be read"):
        read_pixels(exported, np.array([1]))
    (dataset.folder / files[2]).unlink()
    with pytest.raises(SlideUnreadable, match="cannot be read"):
        read_pixels(exported, np.array([2]))


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    files = {"a": b"x" * 3_000_000, "same": b"x" * 3_000_000, "longer": b"x" * 3_000_001}
    files |= {"head": b"y" + b"x" * 2_999_999, "tail": b"x" * 2_999_999 + b"y", "small": b"x", "empty": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = {name: fingerprint_of(tmp_path / name) for name in files}
    assert found.pop("same") == found["a"]
    assert len(set(found.values())) == len(found)
    assert all(len(one) == 16 for one in found.values())


def test_one_slide_is_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: each open one costs file handles."""
    slides = [drawn_slide(tmp_path / f"s{number}.png", seed=number)[0] for number in range(5)]
    rows = [(number, 16.0 * column, 0.0, "0") for column in range(3) for number in range(5)]
    dataset = made_dataset(tmp_path / "d", slides, rows)
    opened, most = 0, 0
    really_open = module.open_slide

    class Counted:
        def __init__(self, source: SlideSource) -> None:
            nonlocal opened, most
            self._slide = really_open(source)
            opened += 1
            most = max(most, opened)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._slide, name)

        def __enter__(self) -> Any:
            return self._slide.__enter__()

        def __exit__(self, *error: Any) -> None:
            nonlocal opened
            opened -= 1
            self._slide.__exit__(*error)

    monkeypatch.setattr(module, "open_slide", Counted)
    found = read_pixels(dataset, np.arange(15))
    assert (most, opened) == (1, 0)
    for row, (number, x, _, _) in enumerate(rows):
        with really_open(slides[number].source) as slide:
            assert np.array_equal(found[row], slide.read(x, 0, 16, 16, 16, 16))


def test_another_file_in_the_slides_place_is_refused(tmp_path: Path) -> None:
    slide, _ = drawn_slide(tmp_path / "s.png", seed=1)
    dataset = made_dataset(tmp_path / "d", [slide], [(0, 0.0, 0.0, "0")])
    drawn_slide(tmp_path / "s.png", seed=2)
    with pytest.raises(SizeMismatch, match="another file"):
        read_pixels(dataset, np.array([0]))


@pytest.mark.parametrize(
    ("old", "new", "is_found"),
    [("{0}/here", "{0}/there", True), ("{0}/her", "{0}/ther", False), ("{0}/here/", "{0}/nowhere", False)],
)
def test_relocations_end_at_folders_and_find_files(tmp_path: Path, old: str, new: str, is_found: bool) -> None:
    slide, _ = drawn_slide(tmp_path / "here" / "s.png")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "s.png").write_bytes((tmp_path / "here" / "s.png").read_bytes())
    dataset = made_dataset(tmp_path / "d", [slide], [(0, 0.0, 0.0, "0")])
    moved = dataset.relocated([(old.format(tmp_path), new.format(tmp_path))])
    wanted = tmp_path / ("there" if is_found else "here") / "s.png"
    assert moved.slides[0].source.path == wanted
