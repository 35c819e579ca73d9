"""Contact sheets: every tile where its caption is, samples that are fair, text that fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_datasets import drawn_slide, made_dataset
from PIL import Image

from her2bridge.events import Event, TaskProgress
from her2bridge.training import sheets
from her2bridge.training.dataset import Dataset, load_dataset
from her2bridge.training.sheets import GAP, LINE, SIDE, caption_of, draw_sheet, write_sheets


def nobody(event: Event) -> None:
    """Hears nothing."""


def picture_of(path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


class TestDrawing:
    @pytest.mark.parametrize("count", [1, 8, 11])
    def test_each_tile_has_its_place_and_caption(self, tmp_path: Path, count: int) -> None:
        """Tiles of one colour each; below each some ink, below a tile without a caption none."""
        colours = np.random.default_rng(0).integers(0, 150, (count, 3), dtype=np.uint8)
        pixels = np.broadcast_to(colours[:, None, None], (count, 32, 32, 3))
        captions = [f"slide {number}\n12, 34" if number else "" for number in range(count)]
        draw_sheet(pixels, captions, tmp_path / "sheet.png")
        sheet = picture_of(tmp_path / "sheet.png")
        text = 2 * LINE if count > 1 else 0
        columns, rows = min(count, 8), -(-count // 8)
        assert sheet.shape == (GAP + rows * (SIDE + text + GAP), GAP + columns * (SIDE + GAP), 3)
        for number in range(count):
            x, y = GAP + number % 8 * (SIDE + GAP), GAP + number // 8 * (SIDE + text + GAP)
            assert (sheet[y : y + SIDE, x : x + SIDE] == colours[number]).all()
            below = sheet[y + SIDE : y + SIDE + text, x : x + SIDE]
            assert (below < 128).any() == (number > 0)
        assert (sheet[:, :GAP] == 255).all()

    def test_a_long_caption_stays_below_its_tile(self, tmp_path: Path) -> None:
        """And its end is still there: what tells one slide from the next often stands at the end."""
        pixels = np.zeros((2, 16, 16, 3), dtype=np.uint8)
        draw_sheet(pixels, ["W" * 200, ""], tmp_path / "one.png")
        draw_sheet(pixels, ["W" * 199 + "I", ""], tmp_path / "other.png")
        one, other = picture_of(tmp_path / "one.png"), picture_of(tmp_path / "other.png")
        assert (one[GAP + SIDE : GAP + SIDE + LINE, GAP + SIDE :] == 255).all()
        assert (one[GAP + SIDE :, GAP + SIDE - 20 : GAP + SIDE] < 128).any()
        assert not np.array_equal(one, other)

    def test_a_title(self, tmp_path: Path) -> None:
        pixels = np.full((1, 16, 16, 3), 200, dtype=np.uint8)
        draw_sheet(pixels, [""], tmp_path / "sheet.png", title="2+")
        sheet = picture_of(tmp_path / "sheet.png")
        assert (sheet[: 2 * LINE] < 128).any()
        assert (sheet[GAP + 2 * LINE : -GAP, GAP:-GAP] == 200).all()

    def test_the_ending_says_the_format(self, tmp_path: Path) -> None:
        pixels = np.zeros((1, 16, 16, 3), dtype=np.uint8)
        for name, kind in (("a.jpg", "JPEG"), ("b.PNG", "PNG")):
            draw_sheet(pixels, ["x"], tmp_path / name)
            with Image.open(tmp_path / name) as picture:
                assert picture.format == kind

    def test_no_tiles(self, tmp_path: Path) -> None:
        draw_sheet(np.empty((0, 16, 16, 3), dtype=np.uint8), [], tmp_path / "sheet.png", title="none")
        assert picture_of(tmp_path / "sheet.png").shape[1] == SIDE + 2 * GAP


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """30 tiles of 0 on a, 3 on b, one on c; two of noise on c."""
    slides = [drawn_slide(tmp_path / f"{key}.png", 96, 80, seed)[0] for seed, key in enumerate("abc")]
    rows = [(0, 16.0 * (n % 6), 16.0 * (n // 6), "0") for n in range(30)]
    rows += [(1, 16.0 * n, 0.0, "0") for n in range(3)]
    rows += [(2, 0.0, 0.0, "0"), (2, 16.0, 0.0, "noise"), (2, 32.0, 48.0, "noise")]
    return made_dataset(tmp_path / "set", slides, rows)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, bytes]]]:
    """Sheet's name -> captions and tiles, of every sheet that is drawn."""
    found: dict[str, list[tuple[str, bytes]]] = {}

    def keep(pixels: np.ndarray, captions: list[str], path: Path, *, title: str = "") -> None:  # type: ignore[type-arg]
        found[path.name] = [(caption, tile.tobytes()) for caption, tile in zip(captions, pixels, strict=True)]
        draw_sheet(pixels, captions, path, title=title)

    monkeypatch.setattr(sheets, "draw_sheet", keep)
    return found


def test_a_sheet_a_class_that_has_tiles(dataset: Dataset, tmp_path: Path) -> None:
    heard: list[Event] = []
    written = write_sheets(dataset, tmp_path / "sheets", heard.append, per_class=2)
    assert [path.name for path in written] == ["0.jpg", "noise.jpg"]
    assert all(picture_of(path).shape[1] == 2 * SIDE + 3 * GAP for path in written)
    ticks = [one for one in heard if isinstance(one, TaskProgress)]
    assert (ticks[-1].done, ticks[-1].total) == (4, 4)


def test_samples_are_spread_over_the_slides(dataset: Dataset, drawn: dict[str, list[tuple[str, bytes]]]) -> None:
    write_sheets(dataset, dataset.folder, nobody, per_class=7)
    slides = [caption.partition("\n")[0] for caption, _ in drawn["0.jpg"]]
    assert slides == ["a"] * 3 + ["b"] * 3 + ["c"]
    write_sheets(dataset, dataset.folder, nobody, per_class=12)
    slides = [caption.partition("\n")[0] for caption, _ in drawn["0.jpg"]]
    assert slides == ["a"] * 8 + ["b"] * 3 + ["c"]


def test_captions_belong_to_their_tiles(dataset: Dataset, drawn: dict[str, list[tuple[str, bytes]]]) -> None:
    write_sheets(dataset, dataset.folder, nobody)
    assert [caption for caption, _ in drawn["noise.jpg"]] == ["c\n16, 0", "c\n32, 48"]
    with Image.open(dataset.slides[2].source.path) as picture:
        pixels = np.asarray(picture)
    assert drawn["noise.jpg"][1][1] == pixels[48:64, 32:48].tobytes()
    assert len(drawn["0.jpg"]) == 34
    assert caption_of(dataset, 35) == "c\n32, 48"


def test_equal_seeds_equal_samples(dataset: Dataset, drawn: dict[str, list[tuple[str, bytes]]]) -> None:
    samples = []
    for seed in (1, 1, 2):
        write_sheets(load_dataset(dataset.folder), dataset.folder, nobody, 9, seed)
        samples.append(drawn["0.jpg"])
    assert samples[0] == samples[1] != samples[2]


def test_sheets_of_before_go_if_they_are_ours(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    draw_sheet(np.zeros((1, 16, 16, 3), dtype=np.uint8), [""], folder / "3+.jpg")
    Image.new("RGB", (8, 8)).save(folder / "2+.jpg")
    (folder / "1+.jpg").write_bytes(b"no picture")
    write_sheets(dataset, folder, nobody, per_class=1)
    assert {path.name for path in folder.iterdir()} == {"0.jpg", "noise.jpg", "2+.jpg", "1+.jpg"}
