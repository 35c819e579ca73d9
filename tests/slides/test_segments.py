"""What is read segment by segment, against tiffslide's own ``read_region``."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import tiffslide
from coordinate_slide import halved
from shapely.geometry import box
from vendor_slides import write_scn, write_svs

from her2bridge.errors import SlideUnreadable
from her2bridge.inference.reader import read_tiles
from her2bridge.records import ByteArray, Crop, Flip, Region, Rotate, SlideSource, TileSpec
from her2bridge.resampling import over_white
from her2bridge.slides import open_slide, segments
from her2bridge.slides.shared_segments import SharedSegments
from her2bridge.slides.via_tiffslide import TiffPixels
from her2bridge.tiling import make_grid

WIDTH, HEIGHT = 421, 337  # no multiple of a tile's side


def tissue(width: int = WIDTH, height: int = HEIGHT) -> ByteArray:
    """Something that JPEG cannot hold exactly: waves and noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / a + y / b) for a, b in ((9, 31), (23, 7), (15, -13))]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def write(
    path: Path, pixels: ByteArray | None = None, *, levels: int = 3, subifds: bool = False, **options: Any
) -> Path:
    """A pyramid, its levels pages or SubIFDs."""
    pixels = tissue() if pixels is None else pixels
    file = {key: options.pop(key) for key in ("bigtiff", "byteorder", "ome") if key in options}
    options = {"photometric": "rgb", "tile": (64, 48), "metadata": None, **options}
    with tifffile.TiffWriter(path, **file) as writer:
        for level in range(levels):
            place = {"subfiletype": 1} if level else {"subifds": levels - 1} if subifds else {}
            writer.write(pixels, **options, **place)
            pixels = halved(pixels) if pixels.shape[2] == 3 else pixels[::2, ::2]
    return path


JPEG = {"compression": "jpeg", "compressionargs": {"level": 80}}
FILES: dict[str, dict[str, Any]] = {
    "420": JPEG | {"subsampling": (2, 2)},
    "422": JPEG | {"subsampling": (2, 1)},
    "444": JPEG | {"subsampling": (1, 1)},
    "jpeg-rgb": {"compression": "jpeg", "compressionargs": {"level": 80, "outcolorspace": "rgb"}},
    "jpeg2000": {"compression": "jpeg2000", "compressionargs": {"level": 40}},
    "webp": {"compression": "webp", "compressionargs": {"level": 70}},
    "deflate": {"compression": "zlib"},
    "predicted": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "lzw-predicted": {"compression": "lzw", "predictor": True},
    "packbits": {"compression": "packbits"},
    "plain": {},
    "strips": {"compression": "zlib", "tile": None, "rowsperstrip": 20},
    "jpeg-strips": JPEG | {"tile": None, "rowsperstrip": 16},
    "one-strip": {"tile": None, "rowsperstrip": HEIGHT},
    "bigtiff": JPEG | {"bigtiff": True},
    "big-endian": JPEG | {"byteorder": ">"},
    "big-endian-plain": {"byteorder": ">", "bigtiff": True},
    "subifds": JPEG | {"subifds": True},
    "ome": {"compression": "zlib", "subifds": True, "ome": True, "metadata": {"axes": "YXS"}},
    "one-level": JPEG | {"levels": 1},
}


def with_tables(path: Path) -> Path:
    """JPEG tiles that share their tables, as scanners write them."""
    write(path, levels=1, **JPEG)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tiles = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.filehandle.seek(offset)
            tiles.append(file.filehandle.read(length))
    tables, bare = b"", []
    for tile in tiles:
        kept, at, found = b"\xff\xd8", 2, b""
        while tile[at + 1] != 0xDA:  # start of scan
            end = at + 2 + struct.unpack_from(">H", tile, at + 2)[0]
            if tile[at + 1] in (0xDB, 0xC4):  # quantisation and Huffman tables
                found += tile[at:end]
            else:
                kept += tile[at:end]
            at = end
        assert not tables or tables == found
        tables = found
        bare.append(kept + tile[at:])
    whole = b"\xff\xd8" + tables + b"\xff\xd9"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter(bare),
            shape=(HEIGHT, WIDTH, 3),
            dtype=np.uint8,
            tile=(64, 48),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            metadata=None,
            extratags=[(347, 7, len(whole), whole, True)],
        )
    return path


MAKERS: dict[str, Callable[[Path], Path]] = {
    **{name: partial(write, **options) for name, options in FILES.items()},
    "tables": with_tables,
    "svs": lambda path: write_svs(path.with_suffix(".svs"), tissue(), levels=3, mpp=0.5),
    "rgba": lambda path: write(
        path,
        np.concatenate([tissue(), tissue()[..., :1]], axis=-1),
        extrasamples=["unassalpha"],
        compression="zlib",
    ),
    "missing": lambda path: without_some(write(path, **JPEG)),
    "missing-white": lambda path: without_some(write(path, extratags=[(42113, 2, 4, "255", True)], **JPEG)),
    "missing-rgba": lambda path: without_some(
        write(path, np.concatenate([tissue(), tissue()[..., :1]], axis=-1), extrasamples=["unassalpha"])
    ),
}


def tag(content: bytearray, file: tifffile.TiffFile, code: int) -> tuple[int, str, tuple[int, ...]]:
    """Where a tag's values of the first page are, their struct format, and what they are."""
    found = file.pages.first.tags[code]
    letter = {3: "H", 4: "I", 16: "Q"}[int(found.dtype)]
    form = f"{file.byteorder}{found.count}{letter}"
    return found.valueoffset, form, struct.unpack_from(form, content, found.valueoffset)


def change(path: Path, code: int, new: Callable[[int, int], int]) -> Path:
    """Rewrite the values of a tag of the first page: (index, value) -> value."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at, form, values = tag(content, file, code)
    struct.pack_into(form, content, at, *(new(index, value) for index, value in enumerate(values)))
    path.write_bytes(content)
    return path


def without_some(path: Path) -> Path:
    """Every third tile of level 0 was never stored; of some the offset alone says so."""
    change(path, 325, lambda index, value: 0 if index % 6 == 0 else value)
    return change(path, 324, lambda index, value: 0 if index % 3 == 0 else value)


@pytest.fixture(scope="module")
def small_region() -> Path:
    path = Path(__file__).parents[3] / "shared" / "data" / "slides" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip(f"the slide is not here: {path}")
    return path


@pytest.fixture(params=[*MAKERS, "CMU-1-Small-Region"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param not in MAKERS:
        found: Path = request.getfixturevalue("small_region")
        return found
    return MAKERS[request.param](tmp_path / "s.tif")


def oracle(path: Path) -> list[ByteArray]:
    """All pixels of each level, as tiffslide shows them."""
    with tiffslide.TiffSlide(path) as slide:
        whole = [
            slide.read_region((0, 0), level, size, as_array=True) for level, size in enumerate(slide.level_dimensions)
        ]
    return [over_white(pixels) if pixels.shape[2] == 4 else pixels for pixels in whole]


def rectangles(sizes: tuple[tuple[int, int], ...], count: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Random (level, x, y, width, height) within the levels, among them whole levels and single pixels."""
    rng = np.random.default_rng(3)
    for level, (width, height) in enumerate(sizes):
        yield level, 0, 0, width, height
        yield level, width - 1, height - 1, 1, 1
        for _ in range(count):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            yield level, x, y, int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))


def test_pixels_are_those_of_read_region(made: Path) -> None:
    expected = oracle(made)
    pixels = TiffPixels(made, 0)
    assert pixels.is_shared  # read segment by segment
    assert pixels.sizes == tuple((level.shape[1], level.shape[0]) for level in expected)
    for level, x, y, width, height in rectangles(pixels.sizes, 15):
        got = pixels.read(level, x, y, width, height)
        np.testing.assert_array_equal(got, expected[level][y : y + height, x : x + width])
        assert got.dtype == np.uint8
    pixels.close()


def test_threads_at_once(made: Path) -> None:
    expected = oracle(made)
    pixels = TiffPixels(made, 0)
    wanted = list(rectangles(pixels.sizes, 10)) * 2
    with ThreadPoolExecutor(6) as pool:
        for (level, x, y, width, height), got in zip(
            wanted, pool.map(lambda one: pixels.read(*one), wanted), strict=True
        ):
            np.testing.assert_array_equal(got, expected[level][y : y + height, x : x + width])
    pixels.close()


def test_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(segments, "_HAS_PREAD", False)
    monkeypatch.delattr("os.pread", raising=False)
    test_threads_at_once(write(tmp_path / "s.tif", **JPEG))


def test_the_second_image_of_a_file(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for pixels in (tissue(100, 80), tissue()):
            writer.write(pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    pixels = TiffPixels(tmp_path / "two.ome.tif", 1)
    assert pixels.is_shared
    np.testing.assert_array_equal(pixels.read(0, 7, 9, 300, 200), tissue()[9:209, 7:307])
    pixels.close()


class TestLeftToTiffslide:
    def test_leica(self, tmp_path: Path) -> None:
        """Its areas lie on a canvas that only tiffslide lays out."""
        pixels = tissue(399, 300)
        path = write_scn(tmp_path / "b.scn", pixels, at=(40, 24), canvas=(611, 437), nm=251.3)
        opened = TiffPixels(path, 0)
        assert not opened.is_shared
        np.testing.assert_array_equal(opened.read(0, 40, 24, 399, 300), pixels)
        opened.close()

    def test_levels_in_several_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page of another file than the one that is open."""
        path = write(tmp_path / "s.tif", **JPEG)
        with tifffile.TiffFile(path) as file, tifffile.TiffFile(path) as other:
            assert segments.segment_levels(file, file.series[0].levels) is not None
            assert segments.segment_levels(file, other.series[0].levels) is None

    def test_several_pages_a_level(self, tmp_path: Path) -> None:
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, np.stack([tissue(), tissue()]), photometric="rgb", tile=(64, 64))
        with tifffile.TiffFile(path) as file:
            assert segments.segment_levels(file, file.series[0].levels) is None

    def test_planes(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "p.tif", tissue().transpose(2, 0, 1), photometric="rgb", planarconfig=2, tile=(64, 64)
        )
        with tifffile.TiffFile(tmp_path / "p.tif") as file:
            assert segments.segment_levels(file, file.series[0].levels) is None

    def test_each_thread_opens_it(self, tmp_path: Path) -> None:
        path = write_scn(tmp_path / "b.scn", tissue(399, 300), at=(40, 24), canvas=(611, 437), nm=251.3)
        with open_slide(SlideSource(path)) as slide:
            before = slide._pixels()
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(slide._pixels).result() is not before


def test_one_open_file_for_all_threads(tmp_path: Path) -> None:
    with open_slide(SlideSource(write(tmp_path / "s.tif", **JPEG))) as slide:
        before = slide._pixels()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(slide._pixels).result() is before


def outcome(read: Callable[[], ByteArray]) -> bytes | str:
    """The pixels, or what kind of error."""
    try:
        return read().tobytes()
    except TiffPixels.errors:
        return "an error"


class TestDamage:
    """Where tiffslide raises, so do we, and as SlideUnreadable; where it shows something, we show the same."""

    @pytest.mark.parametrize("name", ["420", "jpeg2000", "deflate", "lzw", "plain", "strips", "rgba"])
    @pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
    def test_cut_short(self, tmp_path: Path, name: str, share: float) -> None:
        path = MAKERS[name](tmp_path / "s.tif")
        self._cut(path, share)
        assert "an error" in self._alike(path)

    @pytest.mark.parametrize("name", ["420", "444", "jpeg2000", "webp", "deflate", "lzw-predicted", "packbits"])
    def test_segments_overwritten(self, tmp_path: Path, name: str) -> None:
        path = MAKERS[name](tmp_path / "s.tif")
        content = bytearray(path.read_bytes())
        rng = np.random.default_rng(8)
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            for number, (offset, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                start = offset + (0, length // 2)[number % 2]
                if number % 3 == 0:
                    content[start : start + 20] = rng.bytes(20)
        path.write_bytes(content)
        self._alike(path)

    @pytest.mark.parametrize("where", [324, 325])
    @pytest.mark.parametrize("by", [-7, 100_000, 2_000_000_000])
    def test_places_that_are_wrong(self, tmp_path: Path, where: int, by: int) -> None:
        path = change(write(tmp_path / "s.tif", **JPEG), where, lambda index, value: value + by * (index % 5 == 2))
        self._alike(path)

    def test_no_memory_is_asked_for_what_is_not_there(self, tmp_path: Path) -> None:
        path = write(tmp_path / "s.tif", **JPEG)
        content = path.read_bytes()
        pixels = TiffPixels(path, 0)
        assert pixels._segments is not None
        assert pixels._segments._bytes(len(content) - 10, 1 << 60) == content[-10:]
        assert pixels._segments._bytes(len(content) + 10, 1 << 60) == b""
        pixels.close()

    def test_it_is_told(self, tmp_path: Path) -> None:
        path = MAKERS["420"](tmp_path / "s.tif")
        with tifffile.TiffFile(path) as file:
            offset = file.pages.first.dataoffsets[0]
        content = bytearray(path.read_bytes())
        content[offset : offset + 40] = b"\xff" * 40
        path.write_bytes(content)
        with open_slide(SlideSource(path)) as slide, pytest.raises(SlideUnreadable) as error:
            slide.read(10, 10, 300, 200, 300, 200)
        assert "cannot be decoded" in error.value.what
        assert "level 0, x 10–310, y 10–210" in error.value.where
        assert error.value.next_step.endswith(".")

    @staticmethod
    def _cut(path: Path, share: float) -> None:
        """The file ends within its tiles; level 0 is described before them."""
        content = path.read_bytes()
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            ends = sorted(page.dataoffsets)
            stop = ends[int(share * len(ends))] + 5
        path.write_bytes(content[:stop])

    @staticmethod
    def _alike(path: Path) -> list[bytes | str]:
        found = []
        ours = TiffPixels(path, 0)
        assert ours.is_shared
        with tiffslide.TiffSlide(path) as theirs:
            width, height = ours.sizes[0]
            for y in range(0, height - 40, 37):
                for x in range(0, width - 40, 41):
                    rect = (x, y, min(41, width - x), min(37, height - y))

                    def expected(rect: tuple[int, ...] = rect) -> ByteArray:
                        pixels = theirs.read_region(rect[:2], 0, rect[2:], as_array=True)
                        return over_white(pixels) if pixels.shape[2] == 4 else pixels

                    found.append(outcome(expected))
                    assert outcome(lambda rect=rect: ours.read(0, *rect)) == found[-1]  # type: ignore[misc]
        ours.close()
        return found


class TestDecodedOnce:
    VIEWS = ((), (Rotate(1),), (Rotate(2), Flip(True, False)), (Crop(32, 24, 700, 600), Rotate(3)))

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
        """How often each segment was decoded."""
        counted: Counter[int] = Counter()
        lock = threading.Lock()
        make = segments._decoder

        def decoder(*arguments: Any) -> Callable[[bytes, int], ByteArray]:
            decode = make(*arguments)

            def counting(data: bytes, index: int) -> ByteArray:
                with lock:
                    counted[index] += 1
                return decode(data, index)

            return counting

        monkeypatch.setattr(segments, "_decoder", decoder)
        return counted

    @pytest.mark.parametrize("view", VIEWS)
    @pytest.mark.parametrize("workers", [1, 4])
    @pytest.mark.parametrize("file", ["tiles", "strips"])
    def test_off_the_grid(
        self, tmp_path: Path, decoded: Counter[int], view: tuple[Any, ...], workers: int, file: str
    ) -> None:
        """Blocks of 3 × 3 tiles of 40 px over segments of another size."""
        options = {"tile": (48, 32)} if file == "tiles" else {"tile": None, "rowsperstrip": 25}
        path = write(tmp_path / "s.tif", tissue(760, 650), levels=1, compression="zlib", **options)
        with open_slide(SlideSource(path, view=view)) as slide:
            whole = Region("id", None, "Tumor", box(0, 0, *slide.size))
            grid = make_grid([whole], TileSpec(40, 0.25), 0.25, slide.size)
            read = list(read_tiles(slide, grid, batch_size=16, workers=workers, block_tiles=3))
        assert sum(len(indices) for indices, _ in read) == len(grid)
        left, top, right, bottom = (32, 24, 732, 624) if Crop(32, 24, 700, 600) in view else (0, 0, 760, 650)
        if file == "tiles":
            met = {j * 24 + i for j in range(top // 48, -(-bottom // 48)) for i in range(left // 32, -(-right // 32))}
        else:
            met = set(range(top // 25, -(-bottom // 25)))
        assert decoded == Counter(dict.fromkeys(met, 1))

    def test_segments_within_a_read_are_not_kept(self, tmp_path: Path) -> None:
        pixels = TiffPixels(write(tmp_path / "s.tif"), 0)
        assert pixels._segments is not None
        pixels.read(0, 0, 0, 96, 128)
        assert not pixels._segments._shared._kept
        pixels.read(0, 0, 0, WIDTH, HEIGHT)
        assert not pixels._segments._shared._kept
        pixels.read(0, 0, 0, 97, 128)
        assert len(pixels._segments._shared._kept) == 2
        pixels.close()


class TestShared:
    TILE = np.zeros((10, 10, 3), np.uint8)

    def ask(self, shared: SharedSegments, key: int, uses: int, size: int = 300) -> bool:
        """Whether it had to be decoded."""
        asked = []
        got = shared.get(key, uses, size, lambda: (asked.append(key), self.TILE)[1])
        assert got is self.TILE
        return bool(asked)

    def test_kept_for_its_uses(self) -> None:
        shared = SharedSegments()
        assert [self.ask(shared, 1, 4) for _ in range(9)] == [True, False, False, False] * 2 + [True]
        assert [self.ask(shared, 2, 1) for _ in range(2)] == [True, True]

    def test_bound(self) -> None:
        """The longest unused goes."""
        shared = SharedSegments(1300)
        assert [self.ask(shared, key, 9) for key in (1, 2, 3, 4)] == [True] * 4
        assert not self.ask(shared, 1, 9)
        assert self.ask(shared, 5, 9)
        assert shared._size == 1200
        assert not self.ask(shared, 1, 9)
        assert self.ask(shared, 2, 9)

    def test_larger_than_is_worth_it(self) -> None:
        shared = SharedSegments(1200)
        assert [self.ask(shared, 1, 9, size=301) for _ in range(2)] == [True, True]
        assert not shared._kept

    def test_others_wait_for_the_first(self) -> None:
        shared = SharedSegments()
        begun, go = threading.Event(), threading.Event()
        calls = []

        def slow() -> ByteArray:
            calls.append(1)
            begun.set()
            assert go.wait(30)
            return self.TILE

        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(shared.get, 1, 3, 300, slow)
            assert begun.wait(30)
            others = [pool.submit(shared.get, 1, 3, 300, slow) for _ in range(2)]
            while shared._kept:  # until the last has asked
                threading.Event().wait(0.001)
            assert not any(one.done() for one in (first, *others))
            go.set()
            assert all(one.result(30) is self.TILE for one in (first, *others))
        assert len(calls) == 1

    def test_errors_are_raised_to_each(self) -> None:
        shared = SharedSegments()
        begun, go = threading.Event(), threading.Event()

        def failing() -> ByteArray:
            begun.set()
            assert go.wait(30)
            raise ValueError("damaged")

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(shared.get, 1, 3, 300, failing)
            assert begun.wait(30)
            second = pool.submit(shared.get, 1, 3, 300, failing)
            go.set()
            for one in (first, second):
                with pytest.raises(ValueError, match="damaged"):
                    one.result(30)
        assert shared._size == 0
        assert self.ask(shared, 1, 2)


def test_missing_tiles_cost_nothing_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = change(write(tmp_path / "s.tif", levels=1, **JPEG), 325, lambda index, value: 0)
    pixels = TiffPixels(path, 0)
    assert pixels._segments is not None
    monkeypatch.setattr(pixels._segments, "_bytes", None)
    assert not pixels.read(0, 3, 5, 200, 200).any()
    pixels.close()


def endless(path: Path, side: int) -> Path:
    """A slide of ``side`` × ``side`` px whose 240-px tiles are all the same few bytes of the file."""
    count = (-(-side // 240)) ** 2
    options = {"tile": (240, 240), "photometric": "ycbcr", "subsampling": (2, 2), "metadata": None, "compression": 7}
    tifffile.imwrite(path, tissue(240, 240), **(options | JPEG))
    with tifffile.TiffFile(path) as file:
        file.filehandle.seek(file.pages.first.dataoffsets[0])
        segment = file.filehandle.read(file.pages.first.databytecounts[0])
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write((b"-" for _ in range(count)), shape=(side, side, 3), dtype=np.uint8, **options)
    end = path.stat().st_size
    change(path, 324, lambda index, value: end)
    change(path, 325, lambda index, value: len(segment))
    with path.open("ab") as out:
        out.write(segment)
    return path


_MEASURE = """
import resource, sys
from pathlib import Path
from shapely.geometry import box
from her2bridge.inference.reader import read_tiles
from her2bridge.records import Region, SlideSource, TileSpec
from her2bridge.slides import open_slide
from her2bridge.tiling import make_grid
with open_slide(SlideSource(Path(sys.argv[1]))) as slide:
    grid = make_grid([Region("id", None, "Tumor", box(0, 0, *slide.size))], TileSpec(256, 0.25), 0.25, slide.size)
    done = sum(len(indices) for indices, _ in read_tiles(slide, grid, batch_size=32, workers=4))
    assert done == len(grid)
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 2**20))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    """Every tile of 100,000 × 100,000 px, off the file's grid (its tiles are of 240 px), against 20,000 × 20,000."""
    peaks = {}
    for side in (20_000, 100_000):
        path = endless(tmp_path / f"{side}.tif", side)
        ran = subprocess.run([sys.executable, "-c", _MEASURE, path], capture_output=True, text=True, check=True)
        tiles, peaks[side] = map(int, ran.stdout.split())
        assert tiles == round(side / 256) ** 2
    assert peaks[100_000] <= peaks[20_000] + 500
