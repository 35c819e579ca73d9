from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide
from coordinate_slide import coordinate_pixels, halved
from PIL import Image
from vendor_slides import FIELD, write_bif, write_dicom, write_mirax, write_scn, write_svs

from her2bridge.errors import SizeMismatch, SlideUnreadable, UnsupportedServer
from her2bridge.records import ByteArray, Rotate, SlideSource
from her2bridge.slides import open_slide
from her2bridge.slides.pixels import Pixels
from her2bridge.slides.via_openslide import OpenSlidePixels
from her2bridge.slides.via_tiffslide import TiffPixels

openslide = pytest.importorskip("openslide", reason="needs pip install 'her2bridge[openslide]'")

FILL = (240, 245, 250)
ACROSS, DOWN = 6, 4
BOUNDS = (2 * FIELD, FIELD, 3 * FIELD, 2 * FIELD)


@pytest.fixture(scope="module")
def mirax(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ByteArray]:
    """Five fields of a grid of 6 × 4, a hole among them; and the whole canvas."""
    pixels = coordinate_pixels(FIELD * ACROSS, FIELD * DOWN)
    canvas = np.full_like(pixels, FILL)
    fields = {}
    for column, row in ((2, 1), (3, 1), (4, 1), (2, 2), (4, 2)):
        where = np.s_[FIELD * row : FIELD * (row + 1), FIELD * column : FIELD * (column + 1)]
        fields[column, row] = canvas[where] = pixels[where]
    path = tmp_path_factory.mktemp("mirax") / "case 1.mrxs"
    return write_mirax(path, fields, ACROSS, DOWN, fill=FILL), canvas


class TestMirax:
    def test_shown_from_the_bounds_on(self, mirax: tuple[Path, ByteArray]) -> None:
        path, canvas = mirax
        x, y, width, height = BOUNDS
        shown = canvas[y : y + height, x : x + width]
        with open_slide(SlideSource(path, file_size=(width, height), use_bounds=True)) as slide:
            assert (slide.size, slide.levels, slide.mpp) == ((width, height), (1, 2), (0.25, 0.25))
            np.testing.assert_array_equal(slide.read(0, 0, width, height, width, height), shown)
            np.testing.assert_array_equal(slide.read(50, 30, 80, 70, 80, 70), shown[30:100, 50:130])
            np.testing.assert_array_equal(slide.read(0, 0, width, height, width // 2, height // 2), halved(shown))
            assert (slide.read(-9, -9, 9, 9, 9, 9) == 255).all()
        with open_slide(SlideSource(path, use_bounds=True, view=(Rotate(1),))) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, height, width, height, width), np.rot90(shown, -1))

    def test_no_crop(self, mirax: tuple[Path, ByteArray]) -> None:
        path, canvas = mirax
        height, width = canvas.shape[:2]
        with open_slide(SlideSource(path, file_size=(width, height))) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, width, height, width, height), canvas)
        with pytest.raises(SizeMismatch):
            open_slide(SlideSource(path, file_size=(width, height), use_bounds=True))

    def test_threads_read_alike(self, mirax: tuple[Path, ByteArray]) -> None:
        path, canvas = mirax
        with open_slide(SlideSource(path)) as slide, ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda x: slide.read(x, x, 64, 64, 64, 64), range(100)))
        for x, tile in enumerate(got):
            np.testing.assert_array_equal(tile, canvas[x : x + 64, x : x + 64])

    def test_through_a_link(self, mirax: tuple[Path, ByteArray], tmp_path: Path) -> None:
        """The folder lies beside the file that the link leads to."""
        (tmp_path / "link.mrxs").symlink_to(mirax[0])
        with open_slide(SlideSource(tmp_path / "link.mrxs")) as slide:
            assert slide.size == (FIELD * ACROSS, FIELD * DOWN)

    def test_the_file_without_its_folder(self, mirax: tuple[Path, ByteArray], tmp_path: Path) -> None:
        """A small JPEG, which is not the slide."""
        path = tmp_path / "alone.mrxs"
        path.write_bytes(mirax[0].read_bytes())
        with Image.open(path) as picture:
            assert picture.size == (20, 30)
        with pytest.raises(SlideUnreadable, match="alone") as error:
            open_slide(SlideSource(path))
        assert (
            error.value.next_step
            == "A MIRAX slide is a file and a folder: copy the folder alone too, to lie beside the file."
        )

    def test_half_transparent(self, mirax: tuple[Path, ByteArray], monkeypatch: pytest.MonkeyPatch) -> None:
        """Over the slide's background, to which what openslide gives is not premultiplied."""
        monkeypatch.setattr(
            openslide.OpenSlide, "read_region", lambda self, at, level, size: Image.new("RGBA", size, (100, 0, 200, 51))
        )
        with open_slide(SlideSource(mirax[0])) as slide:
            assert slide.read(0, 0, 2, 2, 2, 2)[0, 0].tolist() == [212, 196, 240]


class TestDicom:
    def test_pixels(self, tmp_path: Path) -> None:
        """A DICOM is known by its mark, whatever its name; without bounds, QuPath shows all of it."""
        pixels = coordinate_pixels(200, 150)
        path = write_dicom(tmp_path / "DCM_0", pixels, mpp=0.2525)
        with open_slide(SlideSource(path, file_size=(200, 150), use_bounds=True)) as slide:
            assert slide.mpp == (0.2525, 0.2525)
            np.testing.assert_array_equal(slide.read(0, 0, 200, 150, 200, 150), pixels)

    def test_cut_short(self, tmp_path: Path) -> None:
        path = write_dicom(tmp_path / "d.dcm", coordinate_pixels(200, 150), mpp=0.25)
        path.write_bytes(path.read_bytes()[:-1000])
        with open_slide(SlideSource(path)) as slide:
            slide.read(0, 0, 64, 64, 64, 64)
            with pytest.raises(SlideUnreadable, match="cannot be decoded") as error:
                slide.read(0, 0, 200, 150, 200, 150)
        assert isinstance(error.value.__cause__, openslide.OpenSlideError)

    def test_another_dicom(self, tmp_path: Path) -> None:
        """Not every DICOM is a slide."""
        path = write_dicom(tmp_path / "d.dcm", coordinate_pixels(64, 64), mpp=0.25)
        path.write_bytes(
            path.read_bytes().replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.77.1.4")
        )
        with pytest.raises(SlideUnreadable, match="OME-TIFF"):
            open_slide(SlideSource(path))

    def test_it_holds_one_image(self, tmp_path: Path) -> None:
        path = write_dicom(tmp_path / "d.dcm", coordinate_pixels(64, 64), mpp=0.25)
        with pytest.raises(UnsupportedServer, match="number 3"):
            open_slide(SlideSource(path, series=2))


class TestTiff:
    def test_overlaps_are_shown_once(self, tmp_path: Path) -> None:
        """tiffslide would open it, and lay the tiles side by side."""
        pixels = coordinate_pixels(118, 118)
        path = write_bif(tmp_path / "b.bif", pixels, overlap=10, mpp=0.2325)
        with pytest.warns(UserWarning, match="ventana"), tiffslide.TiffSlide(path) as theirs:
            assert theirs.dimensions == (128, 128)
        with open_slide(SlideSource(path, file_size=(118, 118), use_bounds=True)) as slide:
            assert slide.mpp == (0.2325, 0.2325)
            np.testing.assert_array_equal(slide.read(0, 0, 118, 118, 118, 118), pixels)

    def test_a_size_that_openslide_makes_up(self, tmp_path: Path) -> None:
        path = write_bif(tmp_path / "b.bif", coordinate_pixels(118, FIELD), overlap=10, mpp=0.25)
        with pytest.raises(SlideUnreadable, match="no size"):
            open_slide(SlideSource(path))

    def test_both_readers_show_an_svs_alike(self, tmp_path: Path) -> None:
        self.compare(write_svs(tmp_path / "s.svs", coordinate_pixels(640, 448), levels=3, mpp=0.2525))

    @pytest.mark.parametrize("width", [399, 400])
    def test_both_readers_find_the_same_in_an_scn(self, tmp_path: Path, width: int) -> None:
        """Where nanometres divided by nm/px come out even, and where not."""
        path = write_scn(tmp_path / "l.scn", coordinate_pixels(width, 300), at=(40, 24), canvas=(700, 437), nm=251.3)
        one, other = TiffPixels(path, 0), OpenSlidePixels(path, 0)
        assert one.bounds == other.bounds == (40, 24, width, 300)
        assert one.sizes == other.sizes
        assert one.mpp == pytest.approx(other.mpp, rel=1e-4)
        np.testing.assert_array_equal(one.read(0, 0, 0, *one.sizes[0]), other.read(0, 0, 0, *one.sizes[0]))
        one.close()
        other.close()

    def test_both_readers_show_a_real_svs_alike(self) -> None:
        path = Path(__file__).parents[3] / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
        if not path.is_file():
            pytest.skip(f"the real slide is not here: {path}")
        self.compare(path)

    def test_black_where_no_tile_is(self, tmp_path: Path) -> None:
        """And no background is named: so QuPath paints it."""
        path = write_svs(tmp_path / "s.svs", coordinate_pixels(256, 256), levels=1, mpp=0.25)
        with tifffile.TiffFile(path, mode="r+") as file:
            tag = file.pages.first.tags["TileByteCounts"]
            tag.overwrite([0, *tag.value[1:]])
        first = self.compare(path)
        assert not first[:FIELD, :FIELD].any()
        assert first[FIELD:].any()

    def compare(self, path: Path) -> ByteArray:
        """Levels, µm/px and every pixel; level 0."""
        one: Pixels = TiffPixels(path, 0)
        other: Pixels = OpenSlidePixels(path, 0)
        assert one.sizes == other.sizes
        assert one.mpp == other.mpp
        assert one.bounds == other.bounds is None
        for level, (width, height) in enumerate(one.sizes):
            for x, y, w, h in ((0, 0, width, height), (67, 31, 70, 50)):
                theirs = other.read(level, x, y, w, h)
                np.testing.assert_array_equal(one.read(level, x, y, w, h), theirs)
                assert theirs.dtype == np.uint8
        whole = one.read(0, 0, 0, *one.sizes[0])
        one.close()
        other.close()
        return whole


class TestWhatTiffslideDoesNotUnderstand:
    @pytest.fixture
    def gbk(self, tmp_path: Path) -> Path:
        """An SVS with a Chinese name in its description, in bytes that are neither UTF-8 nor Western."""
        path = write_svs(tmp_path / "u.svs", coordinate_pixels(128, 128), levels=1, mpp=0.25)
        path.write_bytes(path.read_bytes().replace(b"read by User", "read by 丂丂".encode("gbk")))
        return path

    def test_openslide_is_asked(self, gbk: Path) -> None:
        with open_slide(SlideSource(gbk, file_size=(128, 128))) as slide, ThreadPoolExecutor(2) as pool:
            got = list(pool.map(lambda x: slide.read(x, 0, 64, 64, 64, 64), range(20)))
        np.testing.assert_array_equal(got[19], coordinate_pixels(128, 128)[:64, 19 : 19 + 64])

    def test_openslide_is_recommended(self, gbk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openslide", None)
        with pytest.raises(SlideUnreadable) as error:
            open_slide(SlideSource(gbk))
        assert "OME-TIFF" in error.value.next_step
        assert error.value.next_step.endswith("pip install 'her2bridge[openslide]'.")

    def test_a_stack_is_no_slide(self, tmp_path: Path) -> None:
        """OpenSlide would show the first plane of any tiled TIFF."""
        path = tmp_path / "stack.tif"
        stack = np.zeros((5, 128, 128, 3), np.uint8)
        tifffile.imwrite(path, stack, photometric="rgb", tile=(64, 64), metadata={"axes": "ZYXS"})
        assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
        with pytest.raises(SlideUnreadable, match="NotImplementedError"):
            open_slide(SlideSource(path))
