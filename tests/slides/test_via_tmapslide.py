from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from coordinate_slide import halved
from vendor_slides import FIELD, write_tmap6, write_tmap7

from her2bridge.errors import SlideUnreadable, UnsupportedServer
from her2bridge.records import ByteArray, SlideSource
from her2bridge.slides import open_slide

pytest.importorskip("tmapslide", reason="needs pip install 'her2bridge[tmap]'")

BACKGROUND = 244


def slopes(width: int, height: int) -> ByteArray:
    """Pixels that a JPEG keeps within 4."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([200 * x / width, 200 * y / height, 100 * (x + y) / (width + height)], axis=-1).astype(np.uint8)


def assert_close(got: ByteArray, expected: ByteArray) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 4


class TestVersion7:
    def test_pixels(self, tmp_path: Path) -> None:
        pixels = slopes(300, 200)
        path = write_tmap7(tmp_path / "a.TMAP", [pixels, halved(pixels)], mpp=0.26, blank=2)
        pixels[:FIELD, 2 * FIELD : 3 * FIELD] = BACKGROUND
        with open_slide(SlideSource(path)) as slide, ThreadPoolExecutor(2) as pool:
            assert (slide.size, slide.levels) == ((300, 200), (1, 2))
            assert slide.mpp == pytest.approx((0.26, 0.26))
            assert_close(slide.read(0, 0, 300, 200, 300, 200), pixels)
            assert_close(slide.read(20, 140, 160, 60, 80, 30), halved(pixels)[70:100, 10:90])
            for x, got in enumerate(pool.map(lambda x: slide.read(x, 70, 90, 90, 90, 90), range(50))):
                assert_close(got, pixels[70:160, x : x + 90])

    def test_a_guessed_pixel_size_counts_as_none(self, tmp_path: Path) -> None:
        """0.1 µm/px at 40× cannot be; tmapslide then says 0.25."""
        path = write_tmap7(tmp_path / "a.TMAP", [slopes(64, 64)], mpp=0.1)
        with open_slide(SlideSource(path)) as slide:
            assert slide.mpp is None

    @pytest.mark.parametrize("end", [-200, 900, 560])
    def test_cut_short(self, tmp_path: Path, end: int) -> None:
        path = write_tmap7(tmp_path / "a.TMAP", [slopes(300, 200)])
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(SlideUnreadable):
            open_slide(SlideSource(path))

    def test_a_part_that_tmapslide_would_show_as_background(self, tmp_path: Path) -> None:
        path = write_tmap7(tmp_path / "a.TMAP", [slopes(300, 200)])
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(SlideUnreadable, match="are not there") as error:
            open_slide(SlideSource(path))
        assert error.value.next_step == "Copy the slide again, with all the files of its name."

    def test_damaged_pixels(self, tmp_path: Path) -> None:
        path = write_tmap7(tmp_path / "a.TMAP", [slopes(128, 64)])
        content = bytearray(path.read_bytes())
        last = content.rindex(b"\xff\xd8")
        content[last : last + 200] = bytes(200)
        path.write_bytes(content)
        with open_slide(SlideSource(path)) as slide, pytest.raises(SlideUnreadable, match="cannot be decoded"):
            slide.read(0, 0, 128, 64, 128, 64)


class TestVersion6:
    @pytest.mark.parametrize("parts", [1, 2])
    def test_pixels(self, tmp_path: Path, parts: int) -> None:
        pixels = slopes(256, 256)
        with open_slide(SlideSource(write_tmap6(tmp_path / "b.TMAP", pixels, parts=parts))) as slide:
            assert (slide.size, slide.levels) == ((256, 256), (1,))
            assert_close(slide.read(0, 0, 256, 256, 256, 256), pixels)

    def test_a_part_is_not_there(self, tmp_path: Path) -> None:
        path = write_tmap6(tmp_path / "b.TMAP", slopes(256, 256), parts=2)
        (tmp_path / "b.DT1").unlink()
        with pytest.raises(SlideUnreadable, match=r"b\.DT1 beside it"):
            open_slide(SlideSource(path))

    def test_cut_short(self, tmp_path: Path) -> None:
        path = write_tmap6(tmp_path / "b.TMAP", slopes(256, 256))
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(SlideUnreadable, match="the end of the file"):
            open_slide(SlideSource(path))


def test_it_holds_one_image(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedServer, match="number 2"):
        open_slide(SlideSource(write_tmap7(tmp_path / "a.TMAP", [slopes(64, 64)]), series=1))


@pytest.mark.parametrize("content", [b"TMAP", b"TMAP05\0\0", b"TMAP06\0\0", b"TMAP07\0\0" + b"\xff" * 2000])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.TMAP").write_bytes(content)
    with pytest.raises(SlideUnreadable, match="scanner's own software"):
        open_slide(SlideSource(tmp_path / "x.TMAP"))
