"""Exported tiles: the slide's own pixels, begun again after a kill, and never another tile's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_datasets import drawn_slide, made_dataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from her2bridge.errors import SlideError
from her2bridge.events import Event, TaskProgress
from her2bridge.records import ByteArray
from her2bridge.training.dataset import Dataset, load_dataset, read_pixels
from her2bridge.training.export import export_tiles, file_name, file_names

ROWS = [(0, 16.0, 32.0, "1+"), (1, 0.0, 0.0, "noise"), (0, 0.0, 0.0, "3+"), (0, 33.0, 7.0, "1+")]
FILES = ("tiles/a/1+/16_32.png", "tiles/b/noise/0_0.png", "tiles/a/3+/0_0.png", "tiles/a/1+/33_7.png")


def nobody(event: Event) -> None:
    """Hears nothing."""


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Dataset, list[ByteArray]]:
    """A dataset over two slides, and the pixels of these."""
    (a, pixels_a), (b, pixels_b) = (
        drawn_slide(tmp_path / "slides" / f"{key}.png", seed=seed) for seed, key in enumerate("ab")
    )
    splits = ("train", "val", "test", "train")
    dataset = made_dataset(tmp_path / "set", [a, b], ROWS, more={"labels_by": "one person"}, splits=splits)
    return dataset, [pixels_a, pixels_b]


def stamps(dataset: Dataset) -> dict[str, int]:
    return {name: (dataset.folder / name).stat().st_ino for name in FILES}


def test_the_pixels_are_the_slide_s(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    dataset, pixels = drawn
    exported = export_tiles(dataset, nobody)
    assert exported.tiles.files == FILES
    for name, (slide, x, y, _) in zip(FILES, ROWS, strict=True):
        with Image.open(dataset.folder / name) as picture:
            assert picture.format == "PNG"
            found = np.asarray(picture)
        assert np.array_equal(found, pixels[slide][int(y) : int(y) + 16, int(x) : int(x) + 16])


def test_the_dataset_is_saved_anew(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    dataset, pixels = drawn
    exported = export_tiles(dataset, nobody)
    again = load_dataset(dataset.folder)
    assert again.tiles.files == exported.tiles.files == FILES
    assert again.sha256 == exported.sha256 != dataset.sha256
    assert again.tiles.splits == dataset.tiles.splits
    assert again.tiles.regions == dataset.tiles.regions
    assert {**again.card, "hashes": None} == {**dataset.card, "hashes": None}
    for slide in dataset.slides:  # they are no longer needed
        slide.source.path.unlink()
    found = read_pixels(again, np.arange(4))
    assert np.array_equal(found[2], pixels[0][:16, :16])


def test_what_is_there_is_kept(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    dataset, _ = drawn
    exported = export_tiles(dataset, nobody)
    before = stamps(dataset)
    for slide in dataset.slides:
        slide.source.path.unlink()
    assert export_tiles(exported, nobody).sha256 == exported.sha256
    assert export_tiles(dataset, nobody).sha256 == exported.sha256
    assert stamps(dataset) == before


@pytest.mark.parametrize("damage", ["cut", "gone", "other size", "no PNG", "other pixels", "grey"])
def test_what_is_damaged_is_written_again(drawn: tuple[Dataset, list[ByteArray]], damage: str) -> None:
    dataset, _ = drawn
    exported = export_tiles(dataset, nobody)
    before, hurt = stamps(dataset), dataset.folder / FILES[0]
    sound = hurt.read_bytes()
    with Image.open(hurt) as picture:
        text = PngInfo()
        for key, value in picture.text.items():  # type: ignore[attr-defined]
            text.add_text(key, value)
        match damage:
            case "cut":
                hurt.write_bytes(sound[:-40])
            case "gone":
                hurt.unlink()
            case "other size":
                picture.resize((17, 16)).save(hurt, pnginfo=text)
            case "no PNG":
                picture.save(hurt, "BMP")
            case "other pixels":  # another program's tile, of the right size
                Image.new("RGB", (16, 16)).save(hurt)
            case "grey":
                picture.convert("L").save(hurt, pnginfo=text)
    export_tiles(exported, nobody)
    assert hurt.read_bytes() == sound
    after = stamps(dataset)
    assert {name for name in FILES[1:] if before[name] != after[name]} == set()


def test_tiles_of_another_file_are_not_kept(drawn: tuple[Dataset, list[ByteArray]], tmp_path: Path) -> None:
    """A slide scanned again under the same name: same key, same places, other pixels."""
    dataset, _ = drawn
    export_tiles(dataset, nobody)
    a, pixels = drawn_slide(tmp_path / "slides" / "a.png", seed=9)
    export_tiles(made_dataset(dataset.folder, [a, dataset.slides[1]], ROWS), nobody)
    with Image.open(dataset.folder / FILES[2]) as picture:
        assert np.array_equal(np.asarray(picture), pixels[:16, :16])


def test_a_tile_labelled_anew_lies_in_one_folder(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    dataset, _ = drawn
    export_tiles(dataset, nobody)
    theirs = dataset.folder / "tiles" / "a" / "somebody.png"
    Image.new("RGB", (16, 16)).save(theirs)
    anew = [(0, 16.0, 32.0, "2+"), *ROWS[1:]]
    export_tiles(made_dataset(dataset.folder, dataset.slides, anew), nobody)
    found = {path.relative_to(dataset.folder).as_posix() for path in dataset.folder.rglob("*.png")}
    assert found == {"tiles/a/2+/16_32.png", *FILES[1:], "tiles/a/somebody.png"}


def test_a_lost_slide_keeps_what_was_written(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    """The next try, with the slide, writes only the rest; the table does not name files before all are there."""
    dataset, _ = drawn
    path = dataset.slides[1].source.path
    path.rename(path.with_suffix(".away"))
    with pytest.raises(SlideError):
        export_tiles(dataset, nobody)
    assert load_dataset(dataset.folder).tiles.files == (None,) * 4
    path.with_suffix(".away").rename(path)
    assert export_tiles(dataset, nobody).tiles.files == FILES


def test_progress(drawn: tuple[Dataset, list[ByteArray]]) -> None:
    heard: list[Event] = []
    export_tiles(drawn[0], heard.append)
    assert [(one.done, one.total) for one in heard if isinstance(one, TaskProgress)][-1] == (4, 4)


def test_places_between_pixels(tmp_path: Path) -> None:
    slide, _ = drawn_slide(tmp_path / "a.png")
    places = [(0, 264.46 / 16, 0.0, "0"), (0, 264.48 / 16, 0.0, "0"), (0, 10.0, 30.5, "0")]
    exported = export_tiles(made_dataset(tmp_path / "set", [slide], places), nobody)
    assert [os.path.basename(str(name)) for name in exported.tiles.files] == [
        "16.53_0.png",
        "16.53_0.png",
        "10_30.5.png",
    ]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("a.", "a%2E"), ("a ", "a%20"), ("con", "%63on"), ("NUL.tif", "%4EUL.tif"), ("lpt1 x", "%6Cpt1 x")),
        *(("console", "console"), ("~", "%7E"), ("", "%")),
        *(("a b+", "a b+"), ("../x", "%2E.%2Fx"), (".", "%2E"), ("a/b\\c:d", "a%2Fb%5Cc%3Ad"), ("100%", "100%25")),
    ],
)
def test_a_key_is_a_safe_name(key: str, name: str) -> None:
    assert file_name(key) == name


def test_a_long_key_is_a_name_that_a_disk_takes() -> None:
    names = {file_name("ü" * count) for count in (98, 99)}
    assert len(names) == 2
    assert {len(name) for name in names} == {150}


def test_keys_that_differ_in_case_have_names_that_do_not_only() -> None:
    assert file_names(["a", "A", "b", "A~2"]) == ["a", "A~2", "b", "A%7E2"]


def test_a_key_that_would_lead_out_of_the_folder(tmp_path: Path) -> None:
    slide, _ = drawn_slide(tmp_path / "a.png")
    export_tiles(
        made_dataset(tmp_path / "x" / "set", [replace(slide, key="../../../out")], [(0, 0.0, 0.0, "0")]), nobody
    )
    assert not [path for path in tmp_path.rglob("0_0.png") if tmp_path / "x" / "set" / "tiles" not in path.parents]
