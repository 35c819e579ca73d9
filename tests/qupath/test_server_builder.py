"""QuPath's server builders as SlideSources: real projects, and what real QuPaths showed of nested builders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from conftest import FIXTURES
from coordinate_slide import coordinate_pixels, write_slide
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from her2bridge.errors import Her2BridgeError, SizeMismatch, SlideNotFound, UnsupportedServer, UsageError
from her2bridge.qupath.server_builder import calibration_of, read_server_json, slide_source
from her2bridge.records import Crop, Flip, IntArray, Rotate, SlideSource
from her2bridge.slides import open_slide

Json = dict[str, Any]

OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
BIO_FORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"
IMAGEJ = "qupath.imagej.images.servers.ImageJServerBuilder"

WIDTH, HEIGHT = 611, 437
PROJECTS = sorted(FIXTURES.rglob("project.qpproj"))
SHARED = Path(__file__).parents[3] / "shared" / "data" / "her2_cores"


def three_parts(error: Her2BridgeError, *words: str) -> None:
    assert error.what.endswith(".")
    assert error.where
    assert error.next_step.endswith(".")
    for word in words:
        assert word in str(error)


def metadata(width: int, height: int, x: float, y: float, unit: str = "µm") -> Json:
    """What matters here of an image's metadata."""
    calibration = {"pixelWidth": {"value": x, "unit": unit}, "pixelHeight": {"value": y, "unit": unit}}
    return {"width": width, "height": height, "pixelCalibration": calibration}


def of_file(uri: str = "file:///slides/x.svs", *args: str, provider: str | None = OPENSLIDE, **more: object) -> Json:
    return {"builderType": "uri", "providerClassName": provider, "uri": uri, "args": list(args), **more}


def crop(builder: Json, x: int, y: int, width: int, height: int, **more: object) -> Json:
    region = {"x": x, "y": y, "width": width, "height": height, "z": 0, "t": 0}
    return {"builderType": "cropped", "builder": builder, "region": region, **more}


def rotate(builder: Json, degrees: int | str, **more: object) -> Json:
    return {"builderType": "rotated", "builder": builder, "rotation": f"ROTATE_{degrees}", **more}


def flip(builder: Json, how: str, **more: object) -> Json:
    return {"builderType": "flipped", "builder": builder, "flip": how, **more}


def pyramid(builder: Json, **more: object) -> Json:
    return {"builderType": "pyramidize", "builder": builder, **more}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a b+.tif"
    return write_slide(path, coordinate_pixels(WIDTH, HEIGHT), levels=3, mpp=0.25)


def source_of(server_json: Mapping[str, Any], slide: Path) -> SlideSource:
    return slide_source(server_json, folder=slide.parent, saved_uri=None)


def wanted(slide: Path, *args: str, provider: str | None = OPENSLIDE, fragment: str = "") -> SlideSource:
    return source_of(of_file(slide.as_uri() + fragment, *args, provider=provider), slide)


def file_coordinates(slide: Path, server_json: Mapping[str, Any]) -> IntArray:
    """The file's x and y at each pixel of the shown image, int64 [height, width, 2], told by the colours."""
    with open_slide(source_of(server_json, slide)) as opened:
        width, height = opened.size
        r, g, b = np.moveaxis(opened.read(0, 0, width, height, width, height).astype(np.int64), 2, 0)
    return np.stack([r + 256 * (b // 16), g + 256 * (b % 16)], axis=-1)


class TestRealProjects:
    def test_fixtures_are_there(self) -> None:
        assert len(PROJECTS) == 5

    @pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
    def test_the_moved_slides_are_found_and_are_what_qupath_recorded(self, path: Path, tmp_path: Path) -> None:
        folder = path.parent
        if folder.parent.name == "her2_cores":
            if not SHARED.is_dir():
                pytest.skip(f"the cores are not here: {SHARED}")
            folder = tmp_path / "moved" / folder.name
            folder.mkdir(parents=True)
            shutil.copy(path, folder)
            (folder.parent / "images").symlink_to(SHARED / "images")
        project = json.loads(path.read_bytes())
        for image in project["images"]:
            source = slide_source(image["serverBuilder"], folder=folder, saved_uri=project["uri"])
            assert source.path.parent == folder.parent / "images"
            assert source.path.name == unquote(image["serverBuilder"]["uri"]).rpartition("/")[2]
            assert source.view == ()
            with open_slide(source) as opened:
                assert opened.size == source.file_size
                if source.path.suffix == ".png":
                    assert source.mpp is None
                    assert not source.use_bounds
                else:
                    assert source.mpp == pytest.approx(opened.mpp, rel=1e-4)
                    assert source.use_bounds

    @pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
    def test_server_json_says_the_same(self, path: Path, tmp_path: Path) -> None:
        """In the form of 0.5 as in that of 0.6 and later."""
        for image in json.loads(path.read_bytes())["images"]:
            stored = read_server_json(path.parent / "data" / str(image["entryID"]) / "server.json")
            assert ("builder" in stored) == (path.parent.name == "qupath_0_5_1")
            file = image["serverBuilder"]["uri"]
            place = {"folder": tmp_path, "saved_uri": None, "relocations": [(file, str(path))]}  # any file will do
            assert slide_source(stored, **place) == slide_source(image["serverBuilder"], **place)
            assert calibration_of(stored) == calibration_of(image["serverBuilder"])


# Nested builders as QuPath 0.7.0 showed them over a coordinate slide of 611 × 437 px (0.5.1 and 0.6.0 alike, without
# flips, which they have not): size, and which pixel of the file lay top left, top right and bottom left.
SHOWN = {
    "crop of rotation of crop": (
        lambda file: crop(rotate(crop(file, 100, 50, 300, 200), 90), 10, 20, 60, 90),
        (60, 90),
        [(120, 239), (120, 180), (209, 239)],
    ),
    "none": (lambda file: flip(rotate(file, "NONE"), "NONE"), (611, 437), [(0, 0), (610, 0), (0, 436)]),
    "90": (lambda file: rotate(file, 90), (437, 611), [(0, 436), (0, 0), (610, 436)]),
    "180": (lambda file: rotate(file, 180), (611, 437), [(610, 436), (0, 436), (610, 0)]),
    "270": (lambda file: rotate(file, 270), (437, 611), [(610, 0), (610, 436), (0, 0)]),
    "flip of rotation": (
        lambda file: flip(rotate(file, 90), "HORIZONTAL"),
        (437, 611),
        [(0, 0), (0, 436), (610, 0)],
    ),
    "rotation of flip": (
        lambda file: rotate(flip(file, "HORIZONTAL"), 90),
        (437, 611),
        [(610, 436), (610, 0), (0, 436)],
    ),
    "flip of crop": (
        lambda file: flip(crop(file, 5, 7, 101, 33), "VERTICAL"),
        (101, 33),
        [(5, 39), (105, 39), (5, 7)],
    ),
    "flip of pyramid of rotation": (
        lambda file: flip(pyramid(rotate(file, 270)), "BOTH"),
        (437, 611),
        [(0, 436), (0, 0), (610, 436)],
    ),
}


def qupaths_pixel(builder: Json, x: IntArray, y: IntArray) -> tuple[IntArray, IntArray]:
    """Where QuPath looks for a shown pixel in the file: each server's own request, one pixel at a time."""
    kind = builder["builderType"]
    if kind == "uri":
        return x, y
    width, height = shown_size(builder)
    if kind == "cropped":
        x, y = x + builder["region"]["x"], y + builder["region"]["y"]
    elif kind == "rotated":
        request = {
            "ROTATE_NONE": (x, y),
            "ROTATE_90": (y, width - 1 - x),
            "ROTATE_180": (width - 1 - x, height - 1 - y),
            "ROTATE_270": (height - 1 - y, x),
        }
        x, y = request[builder["rotation"]]
    elif kind == "flipped":
        x = width - 1 - x if builder["flip"] in ("HORIZONTAL", "BOTH") else x
        y = height - 1 - y if builder["flip"] in ("VERTICAL", "BOTH") else y
    return qupaths_pixel(builder["builder"], x, y)


def shown_size(builder: Json) -> tuple[int, int]:
    match builder["builderType"]:
        case "uri":
            return WIDTH, HEIGHT
        case "cropped":
            return builder["region"]["width"], builder["region"]["height"]
    width, height = shown_size(builder["builder"])
    return (height, width) if builder.get("rotation") in ("ROTATE_90", "ROTATE_270") else (width, height)


@st.composite
def nested(draw: st.DrawFn, file: Json) -> Json:
    builder = file
    for kind in draw(st.lists(st.sampled_from(["cropped", "rotated", "flipped", "pyramidize"]), max_size=5)):
        width, height = shown_size(builder)
        if kind == "cropped":
            x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            builder = crop(builder, x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
        elif kind == "rotated":
            builder = rotate(builder, draw(st.sampled_from(["NONE", 90, 180, 270])))
        elif kind == "flipped":
            builder = flip(builder, draw(st.sampled_from(["NONE", "HORIZONTAL", "VERTICAL", "BOTH"])))
        else:
            builder = pyramid(builder)
    return builder


class TestNestedBuilders:
    @pytest.mark.parametrize("name", SHOWN)
    def test_what_qupath_showed(self, slide: Path, name: str) -> None:
        nest, size, corners = SHOWN[name]
        got = file_coordinates(slide, nest(of_file(slide.as_uri())))
        assert got.shape[1::-1] == size
        assert [tuple(got[row, column].tolist()) for row, column in ((0, 0), (0, -1), (-1, 0))] == corners
        y, x = np.mgrid[0 : size[1], 0 : size[0]]
        np.testing.assert_array_equal(got, np.stack(qupaths_pixel(nest(of_file()), x, y), axis=-1))

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_every_nesting(self, slide: Path, data: st.DataObject) -> None:
        builder = data.draw(nested(of_file(slide.as_uri())))
        got = file_coordinates(slide, builder)
        y, x = np.mgrid[0 : got.shape[0], 0 : got.shape[1]]
        np.testing.assert_array_equal(got, np.stack(qupaths_pixel(builder, x, y), axis=-1))

    def test_steps_from_the_file_outwards(self, slide: Path) -> None:
        builder = flip(pyramid(rotate(crop(of_file(slide.as_uri()), 1, 2, 30, 40), 270)), "VERTICAL")
        assert source_of(builder, slide).view == (Crop(1, 2, 30, 40), Rotate(3), Flip(horizontal=False, vertical=True))

    def test_the_files_size_is_the_innermost(self, slide: Path) -> None:
        inner = of_file(slide.as_uri(), metadata=metadata(WIDTH, HEIGHT, 0.25, 0.25))
        turned = rotate(inner, 90, metadata=metadata(HEIGHT, WIDTH, 0.25, 0.25))
        builder = crop(turned, 5, 6, 70, 80, metadata=metadata(70, 80, 0.25, 0.25))
        source = source_of(builder, slide)
        assert source.file_size == (WIDTH, HEIGHT)
        with open_slide(source) as opened:
            assert opened.size == (70, 80)
        del inner["metadata"]
        assert source_of(builder, slide).file_size is None
        inner["metadata"] = metadata(WIDTH - 1, HEIGHT, 0.25, 0.25)
        with pytest.raises(SizeMismatch):
            open_slide(source_of(builder, slide))

    def test_the_form_of_qupath_0_5(self, slide: Path) -> None:
        """Metadata beside the builder stand for the builder's own."""
        size = metadata(WIDTH, HEIGHT, 0.8, 0.9)
        source = source_of({"builder": of_file(slide.as_uri()), "metadata": size}, slide)
        assert (source.file_size, source.mpp) == ((WIDTH, HEIGHT), (0.8, 0.9))
        assert source_of({"builder": of_file(slide.as_uri())}, slide) == source_of(of_file(slide.as_uri()), slide)


# Builders and the µm/px that QuPath 0.7.0 gave the image shown (0.5.1 and 0.6.0 alike where there is no flip). The file
# itself states 0.25: where QuPath said that, it is no calibration of QuPath's own, and None is right.
FILE = {"metadata": metadata(WIDTH, HEIGHT, 0.3, 0.6)}
OTHER = {"metadata": metadata(600, 400, 0.1, 0.2)}
CALIBRATIONS = {
    "file": (of_file(**FILE), (0.3, 0.6)),
    "file without metadata": (of_file(), None),
    "crop takes it over": (crop(of_file(**FILE), 0, 0, 600, 400), (0.3, 0.6)),
    "the outermost decides": (rotate(of_file(**FILE), 90, metadata=metadata(437, 611, 0.5, 0.7)), (0.5, 0.7)),
    "even for none": (crop(of_file(**FILE), 0, 0, 600, 400, metadata=metadata(600, 400, 1, 1, "px")), None),
    "rotation goes by the file": (rotate(of_file(**FILE), 90), None),
    "flip goes by the file": (flip(of_file(**FILE), "HORIZONTAL"), None),
    "rotation turns it": (rotate(crop(of_file(**FILE), 0, 0, 600, 400, **OTHER), 90), (0.6, 0.3)),
    "rotation of flip": (rotate(flip(crop(of_file(**FILE), 0, 0, 600, 400), "VERTICAL", **OTHER), 90), (0.6, 0.3)),
    "flip of pyramid": (flip(pyramid(of_file(**FILE), **OTHER), "HORIZONTAL"), (0.3, 0.6)),
    "crop of rotation": (crop(rotate(of_file(**FILE), 90), 0, 0, 300, 400), None),
    "crop of stated rotation": (
        crop(rotate(of_file(**FILE), 90, metadata=metadata(437, 611, 0.5, 0.7)), 0, 0, 300, 400),
        (0.5, 0.7),
    ),
    "half a turn": (rotate(crop(of_file(**FILE), 0, 0, 600, 400), 180), (0.3, 0.6)),
    "two quarter turns": (rotate(rotate(crop(of_file(**FILE), 0, 0, 600, 400), 90), 90), (0.3, 0.6)),
    "0.5": ({"builder": of_file(**FILE), "metadata": metadata(WIDTH, HEIGHT, 0.8, 0.9)}, (0.8, 0.9)),
    "0.5 without metadata": ({"builder": of_file(**FILE)}, (0.3, 0.6)),
}


class TestCalibration:
    @pytest.mark.parametrize("name", CALIBRATIONS)
    def test_whose_it_is(self, name: str) -> None:
        builder, expected = CALIBRATIONS[name]
        assert calibration_of(builder) == expected

    def test_the_source_has_it(self, slide: Path) -> None:
        builder = rotate(crop(of_file(slide.as_uri(), **FILE), 0, 0, 600, 400), 270)
        assert source_of(builder, slide).mpp == (0.6, 0.3)

    @pytest.mark.parametrize(
        "calibration",
        [
            None,
            {},
            {"pixelWidth": {"value": 0.25, "unit": "µm"}},
            {"pixelWidth": {"value": 0.25, "unit": "µm"}, "pixelHeight": {"value": 0.25, "unit": "px"}},
            {"pixelWidth": {"value": 0.25, "unit": "mm"}, "pixelHeight": {"value": 0.25, "unit": "mm"}},
            {"pixelWidth": {"value": 0.25, "unit": "µm"}, "pixelHeight": {"value": float("nan"), "unit": "µm"}},
            {"pixelWidth": {"value": 0, "unit": "µm"}, "pixelHeight": {"value": 0, "unit": "µm"}},
            {"pixelWidth": {"unit": "µm"}, "pixelHeight": {"unit": "µm"}},
        ],
    )
    def test_none(self, calibration: object) -> None:
        assert calibration_of(of_file(metadata={"pixelCalibration": calibration})) is None


class TestReaders:
    def test_openslide_starts_at_the_bounds_unless_told(self, slide: Path) -> None:
        assert wanted(slide).use_bounds
        assert not wanted(slide, "--no-crop").use_bounds

    @pytest.mark.parametrize("provider", [BIO_FORMATS, IMAGEJ])
    def test_the_others_never_do(self, slide: Path, provider: str) -> None:
        for args in ((), ("--no-crop",)):
            source = wanted(slide, *args, provider=provider)
            assert not source.use_bounds
            assert source.series == 0

    @pytest.mark.parametrize(
        ("args", "fragment", "series"),
        [
            ("--series 2", "", 2),
            ("--series=2", "", 2),
            ("-s 2", "", 2),
            ("-s=2", "", 2),
            ("--no-crop --series 12", "", 12),
            ("--series 2 --icc-profile", "#1", 2),
            ("", "#3", 3),
            ("--no-crop", "#3", 3),
            ("", "?series=4", 4),
        ],
    )
    def test_series(self, slide: Path, args: str, fragment: str, series: int) -> None:
        source = wanted(slide, *args.split(), provider=BIO_FORMATS, fragment=fragment)
        assert (source.series, source.path) == (series, slide)

    @pytest.mark.parametrize("provider", [OPENSLIDE, IMAGEJ])
    def test_series_that_the_reader_does_not_heed(self, slide: Path, provider: str) -> None:
        source = wanted(slide, "--series", "2", "--name=x", "--dims", "XYZCT", "--bfOptions", "a=b", provider=provider)
        assert source.series == 0

    @pytest.mark.parametrize("args", ["--series", "--series x", "--series=", "--series -1", "--series ²"])
    def test_series_that_are_no_number(self, slide: Path, args: str) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            wanted(slide, *args.split(), provider=BIO_FORMATS)
        three_parts(caught.value, "number", slide.as_uri(), "OME-TIFF")

    def test_a_series_by_name_in_the_uri(self, slide: Path) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            wanted(slide, provider=BIO_FORMATS, fragment="?name=macro")
        three_parts(caught.value, "name=macro")

    @pytest.mark.parametrize(
        ("provider", "args", "name"),
        [
            (OPENSLIDE, "--icc-profile", "--icc-profile"),
            (OPENSLIDE, "--icc-profile-source a.icc", "--icc-profile-source"),
            (OPENSLIDE, "--no-crop --icc-profile-dest=a.icc", "--icc-profile-dest"),
            (OPENSLIDE, "--rotate ROTATE_90", "--rotate"),
            (OPENSLIDE, "--order BGR", "--order"),
            (IMAGEJ, "--new-in-0.9", "--new-in-0.9"),
            (BIO_FORMATS, "--name macro", "--name"),
            (BIO_FORMATS, "-n=macro", "--name"),
            (BIO_FORMATS, "--series 1 --dims XYZCT", "--dims"),
            (BIO_FORMATS, "--bfOptions zeissczi.autostitch=false", "--bfOptions"),
            (BIO_FORMATS, "--series 1 2", "2"),
        ],
    )
    def test_arguments_refused_by_name(self, slide: Path, provider: str, args: str, name: str) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            wanted(slide, *args.split(), provider=provider)
        assert caught.value.what.endswith(f": {name}.")
        three_parts(caught.value, slide.as_uri(), f"without {name}", "OME-TIFF")

    @pytest.mark.parametrize("provider", ["qupath.ext.omero.OmeroServerBuilder", None])
    def test_readers_refused_by_name(self, slide: Path, provider: str | None) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            wanted(slide, provider=provider)
        three_parts(caught.value, provider or "none is named", slide.as_uri(), "OME-TIFF")

    def test_end_to_end_with_a_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "p#1.png"
        Image.fromarray(coordinate_pixels(90, 70)).save(path)
        builder = rotate(of_file(path.as_uri(), provider=IMAGEJ, metadata=metadata(90, 70, 1, 1, "px")), 90)
        got = file_coordinates(path, builder)
        assert got[0, 0].tolist() == [0, 69]


class TestRefusals:
    @pytest.mark.parametrize(
        "kind",
        [
            *("affine", "swapRedBlue", "color", "channels", "color_deconvolved", "normalized", "typeConvert", "sliced"),
            *("sparse", "z_projected", "z_concatenated", "new_in_0_9"),
        ],
    )
    def test_builders_by_name_at_any_depth(self, slide: Path, kind: str) -> None:
        odd = {"builderType": kind, "builder": of_file(slide.as_uri())}
        for builder in (odd, rotate(crop(odd, 0, 0, 9, 9), 90), {"builder": odd}):
            for ask in (calibration_of, lambda one: source_of(one, slide)):
                with pytest.raises(UnsupportedServer) as caught:
                    ask(builder)
                three_parts(caught.value, f": {kind}.", slide.as_uri(), "OME-TIFF")

    @pytest.mark.parametrize(
        ("builder", "word"),
        [
            ({}, "builderType"),
            ({"builder": None}, "builderType"),
            ({"builderType": None}, "builderType"),
            ({"builderType": "cropped"}, "builderType"),
            ({"builderType": "rotated", "builder": [], "rotation": "ROTATE_90"}, "builderType"),
            (rotate(of_file(), 45), "ROTATE_45"),
            ({**rotate(of_file(), 90), "rotation": ["ROTATE_90"]}, "rotation"),
            ({"builderType": "rotated", "builder": of_file()}, "rotation is null"),
            (flip(of_file(), "horizontal"), "flip"),
            ({**flip(of_file(), "BOTH"), "flip": {}}, "flip"),
            ({"builderType": "cropped", "builder": of_file()}, "region is null"),
            ({**crop(of_file(), 0, 0, 1, 1), "region": {"x": 0, "y": 0, "width": 9}}, "region"),
            ({**crop(of_file(), 0, 0, 1, 1), "region": {"x": 0, "y": 0.5, "width": 9, "height": 9}}, "region"),
            ({"builderType": "uri", "providerClassName": OPENSLIDE}, "uri is null"),
            ({**of_file(), "args": "--no-crop"}, "args"),
            ({**of_file(), "args": [1]}, "args"),
        ],
    )
    def test_json_that_is_no_builder(self, slide: Path, builder: Json, word: str) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            source_of(builder, slide)
        uri = "file:///slides/x.svs"
        three_parts(caught.value, word, uri if uri in json.dumps(builder) else "an image without URI", "OME-TIFF")

    @pytest.mark.parametrize("uri", ["https://images.example/x.svs", "omero://host/3"])
    def test_images_that_are_no_files(self, slide: Path, uri: str) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            source_of(of_file(uri), slide)
        three_parts(caught.value, uri, "as a file")

    def test_a_slide_that_is_gone(self, slide: Path) -> None:
        with pytest.raises(SlideNotFound) as caught:
            source_of(of_file("file:///gone/for%20good/x.svs"), slide)
        three_parts(caught.value, "x.svs", '--relocate "/gone/for good=NEW"')

    def test_missing_args_are_none(self, slide: Path) -> None:
        """As Gson reads them."""
        assert source_of({**of_file(slide.as_uri()), "args": None}, slide) == wanted(slide)


class TestServerJsonFiles:
    def test_missing(self, tmp_path: Path) -> None:
        for path in (tmp_path / "server.json", tmp_path):
            with pytest.raises(UsageError) as caught:
                read_server_json(path)
            three_parts(caught.value, str(path), "data")

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"\x89PNG"])
    def test_not_json(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "server.json").write_bytes(content)
        with pytest.raises(UnsupportedServer) as caught:
            read_server_json(tmp_path / "server.json")
        three_parts(caught.value, "not JSON", "server.json")

    def test_another_json(self, tmp_path: Path) -> None:
        (tmp_path / "list.json").write_text("[1]")
        for path in (tmp_path / "list.json", PROJECTS[0]):
            with pytest.raises(UnsupportedServer) as caught:
                read_server_json(path)
            three_parts(caught.value, str(path), "server.json")

    def test_a_builder_that_we_do_not_know(self, tmp_path: Path) -> None:
        (tmp_path / "server.json").write_text(json.dumps({"builderType": "affine", "builder": of_file()}))
        with pytest.raises(UnsupportedServer) as caught:
            read_server_json(tmp_path / "server.json")
        three_parts(caught.value, "affine")
