from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from tiffslide import TiffSlide

from her2bridge.records import LEFT_OUT, TileClass
from her2bridge.synth.layout import SlideTruth, TruthArea, lay_out
from her2bridge.synth.slide import write_slide
from her2bridge.synth.stains import Stains, unmix

WIDTH, HEIGHT = 2048, 1536


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SlideTruth]:
    path = tmp_path_factory.mktemp("slides") / "small.tiff"
    return path, write_slide(path, WIDTH, HEIGHT, 0.5, seed=1, workers=1)


def test_slide_is_a_pyramid_with_its_resolution(slide: tuple[Path, SlideTruth]) -> None:
    with TiffSlide(slide[0]) as opened:
        assert opened.dimensions == (WIDTH, HEIGHT)
        assert opened.level_dimensions == ((WIDTH, HEIGHT), (512, 384), (128, 96))
        assert opened.properties["tiffslide.mpp-x"] == pytest.approx(0.5)
        assert opened.properties["tiffslide.mpp-y"] == pytest.approx(0.5)
        full = np.asarray(opened.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"), dtype=np.float32)
        small = np.asarray(opened.read_region((0, 0), 1, (512, 384)).convert("RGB"), dtype=np.float32)
    averaged = full.reshape(384, 4, 512, 4, 3).mean(axis=(1, 3))
    # What is left is JPEG's; a shift of one pixel would be several times more.
    difference = np.abs(averaged - small).mean()
    assert difference < 4.0
    assert np.abs(averaged[:, 1:] - small[:, :-1]).mean() > 3 * difference


def test_nothing_but_the_slide_is_left_behind(slide: tuple[Path, SlideTruth]) -> None:
    assert [path.name for path in slide[0].parent.iterdir()] == ["small.tiff"]


def test_areas_show_their_class(slide: tuple[Path, SlideTruth]) -> None:
    path, truth = slide
    with TiffSlide(path) as opened:
        pixels = np.asarray(opened.read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"))
    brown = unmix(pixels, Stains()).dab
    rows, columns = np.mgrid[0:HEIGHT:8, 0:WIDTH:8]
    mean = {}
    for tile_class in (TileClass.ZERO, TileClass.ONE, TileClass.TWO, TileClass.THREE):
        parts = shapely.union_all([a.geometry for a in truth.areas if a.tile_class == tile_class])
        mean[tile_class] = brown[::8, ::8][shapely.contains_xy(parts, columns, rows)].mean()
    assert mean[TileClass.ZERO] < mean[TileClass.ONE] < mean[TileClass.TWO] < mean[TileClass.THREE]
    glass = ~shapely.contains_xy(shapely.union_all([a.geometry.buffer(20) for a in truth.areas]), columns, rows)
    assert pixels[::8, ::8][glass].std() < 4


def test_slides_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_slide(tmp_path / f"{workers}.tiff", 640, 512, 0.5, seed=2, workers=workers)
    assert (tmp_path / "1.tiff").read_bytes() == (tmp_path / "2.tiff").read_bytes()


def test_plan_has_regions_of_known_areas() -> None:
    truth = lay_out(12_288, 8_192, 0.25, seed=0)
    slide = shapely.box(0, 0, truth.width, truth.height)
    tumour = [region for region in truth.regions if region.class_name == "Tumor"]
    ignored = [region for region in truth.regions if region.class_name == "Ignore*"]
    assert len(tumour) >= 3
    assert len(ignored) == 1
    assert any(region.geometry.contains(ignored[0].geometry) for region in tumour)
    assert {area.tile_class for area in truth.areas} == set(TileClass)
    for shape in (*truth.areas, *truth.regions):
        assert shape.geometry.is_valid
        assert slide.covers(shape.geometry)
    for index, area in enumerate(truth.areas):
        assert all(area.geometry.intersection(other.geometry).area < 2 for other in truth.areas[index + 1 :])
    for region in tumour:
        held = sum(area.geometry.intersection(region.geometry).area for area in truth.areas)
        assert held == pytest.approx(region.geometry.area, rel=1e-3)


def test_layout_follows_its_seed() -> None:
    first, again, other = (lay_out(4096, 4096, 0.25, seed) for seed in (1, 1, 2))
    assert all(a.geometry.equals(b.geometry) for a, b in zip(first.areas, again.areas, strict=True))
    assert not any(a.geometry.equals(b.geometry) for a, b in zip(first.areas, other.areas, strict=True))


def test_class_of_a_box_is_that_of_the_area_which_holds_it() -> None:
    areas = (
        TruthArea(TileClass.TWO, shapely.box(0, 0, 100, 100)),
        TruthArea(TileClass.NORMAL, shapely.box(100, 0, 200, 100)),
    )
    truth = SlideTruth(400, 400, 0.25, 0, areas, ())
    boxes = np.array(
        [[10, 10, 60, 60], [80, 10, 130, 60], [120, 10, 170, 60], [300, 300, 350, 350], [180, 10, 230, 60]]
    )
    assert truth.classes_of(boxes.astype(np.float64)).tolist() == [2, LEFT_OUT, 4, 5, LEFT_OUT]


def test_truth_is_kept_and_read(tmp_path: Path) -> None:
    truth = lay_out(4096, 3072, 0.25, seed=3)
    truth.write_json(tmp_path / "truth.json")
    back = SlideTruth.read_json(tmp_path / "truth.json")
    assert (back.width, back.height, back.mpp, back.seed) == (4096, 3072, 0.25, 3)
    assert [a.tile_class for a in back.areas] == [a.tile_class for a in truth.areas]
    assert all(a.geometry.equals(b.geometry) for a, b in zip(back.areas, truth.areas, strict=True))
    assert [(r.name, r.class_name) for r in back.regions] == [(r.name, r.class_name) for r in truth.regions]
    assert all(a.geometry.equals(b.geometry) for a, b in zip(back.regions, truth.regions, strict=True))
