from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide
from coordinate_slide import coordinate_pixels, halved, write_slide
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vendor_slides import write_scn

from her2bridge.errors import (
    Her2BridgeError,
    NoCalibration,
    SizeMismatch,
    SlideNotFound,
    SlideUnreadable,
    UnsupportedServer,
    UsageError,
)
from her2bridge.records import ByteArray, Crop, Flip, Rotate, SlideSource, ViewStep
from her2bridge.slides import MppChoice, open_slide, resolve_mpp

WIDTH, HEIGHT = 611, 437


def three_parts(error: Her2BridgeError, *words: str) -> None:
    """All three parts say something, and the words are among them."""
    assert error.what.endswith(".")
    assert error.where
    assert error.next_step.endswith(".")
    for word in words:
        assert word in str(error)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    return write_slide(path, coordinate_pixels(WIDTH, HEIGHT), levels=3, mpp=0.25)


def padded(pixels: ByteArray, x: int, y: int, width: int, height: int) -> ByteArray:
    """A rectangle of an image on an endless white plane, the slow way."""
    out = np.full((height, width, 3), 255, dtype=np.uint8)
    for row in range(height):
        for column in range(width):
            if 0 <= y + row < pixels.shape[0] and 0 <= x + column < pixels.shape[1]:
                out[row, column] = pixels[y + row, x + column]
    return out


def apply_view(pixels: ByteArray, view: Sequence[ViewStep]) -> ByteArray:
    """What QuPath shows, step by step on the whole array."""
    for step in view:
        match step:
            case Crop(x, y, width, height):
                pixels = pixels[y : y + height, x : x + width]
            case Rotate(turns):
                pixels = np.rot90(pixels, -turns)
            case Flip(horizontal, vertical):
                pixels = pixels[:, ::-1] if horizontal else pixels
                pixels = pixels[::-1] if vertical else pixels
    return pixels


@st.composite
def views(draw: st.DrawFn) -> tuple[ViewStep, ...]:
    width, height = WIDTH, HEIGHT
    steps: list[ViewStep] = []
    for kind in draw(st.lists(st.sampled_from(["crop", "rotate", "flip"]), max_size=5)):
        if kind == "crop":
            x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            step: ViewStep = Crop(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
            width, height = step.width, step.height
        elif kind == "rotate":
            step = Rotate(draw(st.integers(-3, 7)))
            width, height = (height, width) if step.quarter_turns % 2 else (width, height)
        else:
            step = Flip(draw(st.booleans()), draw(st.booleans()))
        steps.append(step)
    return tuple(steps)


class TestView:
    @settings(max_examples=60, deadline=None)
    @given(view=views(), data=st.data())
    def test_every_composition_equals_numpy(
        self, pyramid: Path, view: tuple[ViewStep, ...], data: st.DataObject
    ) -> None:
        shown = apply_view(coordinate_pixels(WIDTH, HEIGHT), view)
        with open_slide(SlideSource(pyramid, file_size=(WIDTH, HEIGHT), view=view)) as slide:
            width, height = slide.size
            assert (height, width) == shown.shape[:2]
            np.testing.assert_array_equal(slide.read(0, 0, width, height, width, height), shown)
            x, y = data.draw(st.integers(-30, width + 30)), data.draw(st.integers(-30, height + 30))
            w, h = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
            np.testing.assert_array_equal(slide.read(x, y, w, h, w, h), padded(shown, x, y, w, h))

    @settings(max_examples=25, deadline=None)
    @given(view=views(), scale=st.sampled_from([1.0, 1.033, 1.6, 0.5]), data=st.data())
    def test_resampling_sees_the_shown_image(
        self, pyramid: Path, view: tuple[ViewStep, ...], scale: float, data: st.DataObject
    ) -> None:
        """As Pillow does it on the shown image itself, laid on white."""
        shown = apply_view(coordinate_pixels(WIDTH, HEIGHT), view)
        x = data.draw(st.floats(-20, shown.shape[1]))
        y = data.draw(st.floats(-20, shown.shape[0]))
        with open_slide(SlideSource(pyramid, view=view)) as slide:
            got = slide.read(x, y, 40 * scale, 30 * scale, 40, 30)
        around = Image.fromarray(np.pad(shown, ((99, 99), (99, 99), (0, 0)), constant_values=255))
        box = (x + 99, y + 99, x + 99 + 40 * scale, y + 99 + 30 * scale)
        expected = np.array(around.resize((40, 30), Image.Resampling.BILINEAR, box))
        # 2: positions within 0.001 px of a whole pixel are taken as whole, and Pillow keeps a box in single precision.
        assert np.abs(got.astype(int) - expected).max() <= 2

    def test_crop_outside(self, pyramid: Path) -> None:
        with pytest.raises(SizeMismatch) as error:
            open_slide(SlideSource(pyramid, view=(Rotate(1), Crop(0, 0, HEIGHT + 1, 10))))
        three_parts(error.value, "pyramid.tif", f"{HEIGHT + 1} × 10", f"{HEIGHT} × {WIDTH}")


class TestRead:
    def test_pixels_are_those_of_read_region(self, pyramid: Path) -> None:
        """On every level, at the level's own pixels (tiffslide itself lands a pixel off where 611 / 152 is not 4)."""
        with tiffslide.TiffSlide(pyramid) as theirs, open_slide(SlideSource(pyramid)) as slide:
            for level, size in enumerate(theirs.level_dimensions):
                expected = theirs.read_region((0, 0), level, size, as_array=True)
                for x, y, w, h in ((0, 0, *size), (5, 7, 64, 50), (65, 31, 80, 70)):
                    down = 2**level
                    got = slide.read(x * down, y * down, w * down, h * down, w, h)
                    np.testing.assert_array_equal(got, expected[y : y + h, x : x + w])
                    assert got.dtype == np.uint8

    def test_levels_of_odd_images_are_whole(self, pyramid: Path) -> None:
        with open_slide(SlideSource(pyramid)) as slide:
            assert slide.levels == (1.0, 2.0, 4.0)

    @pytest.mark.parametrize(
        ("scale", "level"), [(0.5, 0), (1.0, 0), (1.97, 0), (1.99, 1), (2.0, 1), (3.9, 1), (4.0, 2), (20.0, 2)]
    )
    def test_never_enlarges_a_coarser_level(
        self, pyramid: Path, monkeypatch: pytest.MonkeyPatch, scale: float, level: int
    ) -> None:
        seen: list[int] = []
        with open_slide(SlideSource(pyramid)) as slide:
            read = slide._pixels().read
            monkeypatch.setattr(slide._pixels(), "read", lambda *rect: (seen.append(rect[0]), read(*rect))[1])
            slide.read(10.5, 11.25, 20 * scale, 20 * scale, 20, 20)
        assert set(seen) == {level}

    def test_reduction_is_antialiased(self, tmp_path: Path) -> None:
        """Stripes one pixel wide become their mean, not one of the two."""
        stripes = np.zeros((256, 256, 3), dtype=np.uint8)
        stripes[:, ::2] = 200
        with open_slide(SlideSource(write_slide(tmp_path / "s.tif", stripes))) as slide:
            got = slide.read(32, 32, 192, 192, 64, 64)
        assert np.abs(got.astype(int) - 100).max() <= 12

    def test_no_overshoot(self, tmp_path: Path) -> None:
        step = np.full((128, 128, 3), 230, dtype=np.uint8)
        step[:, 64:] = 90
        with open_slide(SlideSource(write_slide(tmp_path / "s.tif", step))) as slide:
            got = slide.read(20.3, 20.7, 80 * 1.033, 60 * 1.033, 80, 60)
        assert (got.min(), got.max()) == (90, 230)

    def test_parts_equal_the_whole(self, pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_slide(SlideSource(pyramid)) as slide:
            whole = slide.read(-10.5, 3.25, 640, 430.5, 201, 133)
            monkeypatch.setattr("her2bridge.resampling._READ_PIXELS", 5000)
            parts = slide.read(-10.5, 3.25, 640, 430.5, 201, 133)
        assert np.abs(whole.astype(int) - parts).max() <= 1

    def test_wholly_outside_is_white(self, pyramid: Path) -> None:
        with open_slide(SlideSource(pyramid)) as slide:
            assert (slide.read(WIDTH, 0, 10, 10, 10, 10) == 255).all()
            assert (slide.read(-500.5, -500, 100, 100, 40, 40) == 255).all()

    def test_alpha_over_white(self, tmp_path: Path) -> None:
        rgba = np.zeros((64, 64, 4), dtype=np.uint8)
        rgba[..., 0], rgba[..., 3] = 200, 51
        tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16))
        Image.fromarray(rgba).save(tmp_path / "a.png")
        for name in ("a.tif", "a.png"):
            with open_slide(SlideSource(tmp_path / name)) as slide:
                assert slide.read(0, 0, 2, 2, 2, 2)[0, 0].tolist() == [244, 204, 204]

    def test_threads_read_alike(self, pyramid: Path) -> None:
        with open_slide(SlideSource(pyramid)) as slide, ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda x: slide.read(x, x, 64, 64, 64, 64), range(100)))
        pixels = coordinate_pixels(WIDTH, HEIGHT)
        for x, tile in enumerate(got):
            np.testing.assert_array_equal(tile, pixels[x : x + 64, x : x + 64])

    def test_closed(self, pyramid: Path) -> None:
        with open_slide(SlideSource(pyramid)) as slide:
            pass
        with pytest.raises(ValueError, match="closed"):
            slide.read(0, 0, 1, 1, 1, 1)

    def test_thumbnail(self, pyramid: Path) -> None:
        with open_slide(SlideSource(pyramid, view=(Rotate(1),))) as slide:
            picture, downsample = slide.thumbnail(100)
            assert downsample == WIDTH / 100
            assert picture.shape == (100, 72, 3)  # 437 / 6.11 = 71.5


class TestOpen:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SlideNotFound) as error:
            open_slide(SlideSource(tmp_path / "gone.svs"))
        three_parts(error.value, "gone.svs", "--relocate")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SlideUnreadable) as error:
            open_slide(SlideSource(tmp_path))
        three_parts(error.value, "folder")

    @pytest.mark.parametrize(
        "content", [b"", b"no slide", b"II*\0", b"II*\0\x08\0\0\0" + b"\xff" * 40, b"\x89PNG\r\n\x1a\n"]
    )
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.svs").write_bytes(content)
        with pytest.raises(SlideUnreadable) as error:
            open_slide(SlideSource(tmp_path / "x.svs"))
        three_parts(error.value, "x.svs", "OME-TIFF")

    def test_picture(self, tmp_path: Path) -> None:
        pixels = coordinate_pixels(90, 70)
        Image.fromarray(pixels).save(tmp_path / "p.png", dpi=(72, 72))
        with open_slide(SlideSource(tmp_path / "p.png", file_size=(90, 70), view=(Rotate(1),))) as slide:
            assert slide.mpp is None
            np.testing.assert_array_equal(slide.read(0, 0, 70, 90, 70, 90), np.rot90(pixels, -1))

    def test_picture_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("her2bridge.slides.via_pillow.MAX_PIXELS", 99)
        Image.new("RGB", (10, 10)).save(tmp_path / "p.png")
        with pytest.raises(SlideUnreadable) as error:
            open_slide(SlideSource(tmp_path / "p.png"))
        three_parts(error.value, "10 × 10")

    def test_not_rgb(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "deep.tif", np.zeros((64, 64, 3), np.uint16), photometric="rgb")
        tifffile.imwrite(tmp_path / "grey.tif", np.zeros((64, 64), np.uint8), photometric="minisblack")
        tifffile.imwrite(
            tmp_path / "fluo.tif", np.zeros((3, 64, 64), np.uint8), photometric="minisblack", metadata={"axes": "CYX"}
        )
        tifffile.imwrite(tmp_path / "planes.tif", np.zeros((3, 64, 64), np.uint8), photometric="rgb", planarconfig=2)
        Image.new("L", (9, 9)).save(tmp_path / "grey.png")
        reasons = {"deep.tif": "uint16", "grey.tif": "RGB", "fluo.tif": "RGB", "planes.tif": "SYX", "grey.png": "RGB"}
        for name, reason in reasons.items():
            with pytest.raises(SlideUnreadable) as error:
                open_slide(SlideSource(tmp_path / name))
            three_parts(error.value, name, reason)

    def test_damaged_pixels(self, tmp_path: Path) -> None:
        path = write_slide(tmp_path / "d.tif", coordinate_pixels(256, 256))
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as file:
            offset = file.pages.first.dataoffsets[5]
        content[offset : offset + 40] = b"\xff" * 40
        path.write_bytes(content)
        with open_slide(SlideSource(path)) as slide:
            slide.read(0, 0, 64, 64, 64, 64)
            with pytest.raises(SlideUnreadable) as error:
                slide.read(0, 0, 256, 256, 256, 256)
        three_parts(error.value, "d.tif", "level 0")
        assert error.value.__cause__ is not None

    def test_size_mismatch(self, pyramid: Path) -> None:
        with pytest.raises(SizeMismatch) as error:
            open_slide(SlideSource(pyramid, file_size=(WIDTH, HEIGHT - 1)))
        three_parts(error.value, f"{WIDTH} × {HEIGHT}", f"{HEIGHT - 1}")

    def test_series(self, tmp_path: Path) -> None:
        small, large = coordinate_pixels(100, 80), coordinate_pixels(300, 200)
        path = tmp_path / "two.ome.tif"
        with tifffile.TiffWriter(path, ome=True) as writer:
            writer.write(small, photometric="rgb", tile=(64, 64), metadata={"PhysicalSizeX": 9, "PhysicalSizeY": 9})
            options = {"photometric": "rgb", "tile": (64, 64)}
            writer.write(large, subifds=1, metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.4}, **options)  # type: ignore[arg-type]
            writer.write(halved(large), subfiletype=1, **options)  # type: ignore[arg-type]
        with open_slide(SlideSource(path)) as slide:
            assert (slide.size, slide.mpp) == ((100, 80), (9, 9))
        with open_slide(SlideSource(path, file_size=(300, 200), series=1, view=(Rotate(1),))) as slide:
            assert (slide.mpp, slide.levels) == ((0.4, 0.5), (1, 2))
            np.testing.assert_array_equal(slide.read(0, 0, 200, 300, 200, 300), np.rot90(large, -1))
        with pytest.raises(UnsupportedServer) as error:
            open_slide(SlideSource(path, series=2))
        three_parts(error.value, "number 3", "holds 2")

    def test_bounds(self, tmp_path: Path) -> None:
        """(0,0) of QuPath's OpenSlide server lies at the bounds, whose extent is that of the pixels."""
        pixels = coordinate_pixels(399, 300)
        path = write_scn(tmp_path / "b.scn", pixels, at=(40, 24), canvas=(611, 437), nm=251.3)
        with open_slide(SlideSource(path, file_size=(399, 300), use_bounds=True, view=(Rotate(2),))) as slide:
            assert slide.size == (399, 300)
            shown = pixels[::-1, ::-1]
            np.testing.assert_array_equal(slide.read(-5, 0, 450, 300, 450, 300), padded(shown, -5, 0, 450, 300))
        with open_slide(SlideSource(path, file_size=(612, 438))) as slide:
            whole = slide.read(0, 0, 612, 438, 612, 438)
        np.testing.assert_array_equal(whole[24:324, 40:439], pixels)
        assert not whole[:24].any()  # black where nothing was scanned, as in QuPath
        with pytest.raises(SizeMismatch):
            open_slide(SlideSource(path, file_size=(612, 438), use_bounds=True))

    def test_levels_of_another_shape_are_left_alone(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "l.tif") as writer:
            writer.write(coordinate_pixels(200, 200), subifds=1, photometric="rgb", tile=(64, 64), metadata=None)
            writer.write(coordinate_pixels(100, 90), subfiletype=1, photometric="rgb", tile=(64, 64), metadata=None)
        with open_slide(SlideSource(tmp_path / "l.tif")) as slide:
            assert slide.levels == (1.0,)


class TestMpp:
    def choose(self, path: Path, mpp: tuple[float, float] | None = None, override: float | None = None) -> MppChoice:
        source = SlideSource(path, mpp=mpp)
        with open_slide(source) as slide:
            return resolve_mpp(source, slide, override)

    def test_precedence(self, pyramid: Path, tmp_path: Path) -> None:
        bare = write_slide(tmp_path / "bare.tif", coordinate_pixels(64, 64))
        assert self.choose(pyramid, (0.5, 0.502), 0.3) == MppChoice(0.501, "QuPath")
        file = self.choose(pyramid, None, 0.3)
        assert (round(file.value, 6), file.origin) == (0.25, "file")
        assert self.choose(bare, None, 0.3) == MppChoice(0.3, "--mpp")
        with pytest.raises(NoCalibration) as error:
            self.choose(bare)
        three_parts(error.value, "bare.tif", "--mpp", "QuPath")

    @pytest.mark.parametrize("mpp", [(0.25, 0.26), (0.0, 0.0), (float("nan"), 0.25), (353.0, 353.0), (-0.25, -0.25)])
    def test_unusable_in_qupath(self, pyramid: Path, mpp: tuple[float, float]) -> None:
        with pytest.raises(NoCalibration) as error:
            self.choose(pyramid, mpp, 0.25)
        three_parts(error.value, "pyramid.tif", "QuPath")

    def test_a_pictures_dpi_is_no_calibration(self, tmp_path: Path) -> None:
        path = write_slide(tmp_path / "dpi.tif", coordinate_pixels(64, 64), mpp=352.8)
        assert self.choose(path, None, 0.25).origin == "--mpp"
        with pytest.raises(NoCalibration):
            self.choose(path)

    @pytest.mark.parametrize("override", [0.0, -1.0, float("nan"), 353.0])
    def test_bad_override(self, pyramid: Path, override: float) -> None:
        with pytest.raises(UsageError):
            self.choose(pyramid, None, override)
