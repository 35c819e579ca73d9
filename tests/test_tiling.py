from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from her2bridge.errors import BadRegion, NoCalibration, UsageError
from her2bridge.records import Region, TileGrid, TileSpec
from her2bridge.tiling import check_resolution, make_grid, tissue_region

SPEC = TileSpec(256, 0.25)
SIZE = (5000, 4000)


def region(geometry: BaseGeometry, name: str = "r") -> Region:
    return Region(id=name, name=name, class_name="Tumor", geometry=geometry)


def grid_of(*geometries: BaseGeometry, mpp: float = 0.25, **options: object) -> TileGrid:
    regions = [region(geometry, f"r{number}") for number, geometry in enumerate(geometries)]
    return make_grid(regions, SPEC, mpp, SIZE, **options)  # type: ignore[arg-type]


def tiles(grid: TileGrid, rows: Sequence[int] | None = None) -> set[tuple[int, int]]:
    chosen = range(len(grid)) if rows is None else rows
    return {(int(grid.columns[row]), int(grid.rows[row])) for row in chosen}


def blob(x: float, y: float, radius: float, points: int = 32, seed: int = 0) -> Polygon:
    """A star-shaped, valid, ragged polygon."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = radius * np.random.default_rng(seed).uniform(0.5, 1.0, points)
    return Polygon(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1))


blobs = st.builds(
    blob,
    st.floats(-500, 5500),
    st.floats(-500, 4500),
    st.floats(50, 2500),
    st.integers(3, 60),
    st.integers(0, 1000),
)
squares = st.builds(
    lambda i, j, w, h: box(128 * i, 128 * j, 128 * (i + w), 128 * (j + h)),
    st.integers(-2, 36),
    st.integers(-2, 30),
    st.integers(1, 20),
    st.integers(1, 20),
)
"""Edges of these run through centres."""


class TestAgainstTheSlowWay:
    @settings(max_examples=60, deadline=None)
    @given(
        shapes=st.lists(blobs | squares, min_size=1, max_size=5),
        exclusions=st.lists(blobs | squares, max_size=2),
        mpp=st.sampled_from([0.25, 0.242, 0.5, 0.17]),
    )
    def test_centre_rule(self, shapes: list[Polygon], exclusions: list[Polygon], mpp: float) -> None:
        image = box(0, 0, *SIZE)
        if all(shape.intersection(image).area == 0 for shape in shapes):
            return
        grid = grid_of(*shapes, mpp=mpp, exclusions=exclusions)
        side = SPEC.side(mpp)
        cut_out = shapely.union_all(exclusions) if exclusions else Polygon()
        expected: list[set[tuple[int, int]]] = []
        for shape in shapes:
            holds = set()
            for j in range(int(SIZE[1] / side) + 2):
                for i in range(int(SIZE[0] / side) + 2):
                    centre = Point((i + 0.5) * side, (j + 0.5) * side)
                    if shape.intersects(centre) and image.intersects(centre) and not cut_out.contains(centre):
                        holds.add((i, j))
            gone = cut_out.covers(shape) or shape.intersection(image).area == 0
            expected.append(set() if gone else holds)
        assert [tiles(grid, rows.tolist()) for rows in grid.members] == expected
        assert tiles(grid) == set().union(*expected)
        assert len(tiles(grid)) == len(grid)
        assert list(zip(grid.rows, grid.columns, strict=True)) == sorted(zip(grid.rows, grid.columns, strict=True))
        for row in range(len(grid)):
            holders = [number for number in range(len(shapes)) if row in grid.members[number]]
            assert grid.owner[row] == min(holders, key=lambda number: (shapes[number].area, number))

    @settings(max_examples=30, deadline=None)
    @given(shape=blobs | squares, exclusion=blobs, share=st.sampled_from([0.01, 0.5, 0.75, 1.0]))
    def test_overlap_rule(self, shape: Polygon, exclusion: Polygon, share: float) -> None:
        area = shape.intersection(box(0, 0, *SIZE))
        if area.area == 0 or exclusion.covers(shape):
            return
        area = area.difference(exclusion)
        grid = grid_of(shape, exclusions=[exclusion], min_overlap=share)
        expected = {
            (i, j)
            for i in range(21)
            for j in range(17)
            if area.intersection(box(256 * i, 256 * j, 256 * i + 256, 256 * j + 256)).area >= (share - 1e-9) * 256**2
        }
        assert tiles(grid) == expected


class TestByHand:
    def test_centre_on_the_edge_counts(self) -> None:
        assert tiles(grid_of(box(128, 128, 640, 384))) == {(i, j) for i in (0, 1, 2) for j in (0, 1)}
        assert tiles(grid_of(box(128.001, 128.001, 639.999, 383.999))) == {(1, 0 + 1)} - {(1, 1)}

    def test_hole(self) -> None:
        ring = Polygon(box(0, 0, 1280, 1280).exterior, [box(256, 256, 1024, 1024).exterior])
        assert tiles(grid_of(ring)) == {(i, j) for i in range(5) for j in range(5)} - {
            (i, j) for i in (1, 2, 3) for j in (1, 2, 3)
        }
        edge = Polygon(box(0, 0, 1280, 1280).exterior, [box(384, 384, 896, 896).exterior])  # through centres 1 and 3
        assert (2, 2) not in tiles(grid_of(edge))
        assert {(1, 1), (1, 2), (3, 3)} <= tiles(grid_of(edge))

    def test_exclusion_is_like_a_hole(self) -> None:
        got = tiles(grid_of(box(0, 0, 1280, 1280), exclusions=[box(384, 384, 896, 896)]))
        assert got == {(i, j) for i in range(5) for j in range(5)} - {(2, 2)}

    def test_exclusions_side_by_side_leave_no_seam(self) -> None:
        halves = [box(0, 0, 640, 1280), box(640, 0, 1280, 1280)]  # the seam runs through centres of column 2
        grid = grid_of(box(0, 0, 2560, 1280), exclusions=halves)
        assert min(grid.columns) == 5

    def test_excluded_wholly(self) -> None:
        grid = grid_of(box(128, 128, 640, 640), box(1280, 0, 1536, 256), exclusions=[box(128, 128, 640, 640)])
        assert tiles(grid) == {(5, 0)}
        assert grid.warnings == ("region 1 (r0): it lies wholly in an excluded area; not scored",)

    def test_nested_belongs_to_both_and_lies_below_the_inner(self) -> None:
        inner, outer = box(256, 256, 512, 512), box(0, 0, 768, 768)
        for shapes, inner_number in (((outer, inner), 1), ((inner, outer), 0)):
            grid = grid_of(*shapes)
            assert len(grid) == 9
            assert tiles(grid, np.nonzero(grid.owner == inner_number)[0].tolist()) == {(1, 1)}
            assert [len(rows) for rows in grid.members] == ([9, 1] if inner_number else [1, 9])

    def test_smaller_as_drawn_not_as_clipped(self) -> None:
        """The large one shows only a sliver of itself in the image, and still is the large one."""
        grid = grid_of(box(0, -9000, 256, 256), box(0, 0, 512, 512))
        assert tiles(grid, np.nonzero(grid.owner == 1)[0].tolist()) == {(0, 0), (1, 0), (0, 1), (1, 1)}

    def test_tie_goes_to_the_first(self) -> None:
        grid = grid_of(box(0, 0, 512, 256), box(256, 0, 768, 256))
        assert grid.owner.tolist() == [0, 0, 1]

    def test_float_side(self) -> None:
        grid = grid_of(box(0, 0, 2000, 300), mpp=0.242)
        assert grid.side == pytest.approx(264.4628)
        assert tiles(grid) == {(i, 0) for i in range(8)}  # centre 7.5 · 264.46 = 1983.5
        assert grid.centres()[7].tolist() == pytest.approx([7.5 * 64 / 0.242, 0.5 * 64 / 0.242])

    def test_beyond_the_edge_of_the_image(self) -> None:
        """5000 = 19.53 tiles: the centre of column 19 at 4992 lies inside; 4000 = 15.6: row 15 at 3968 too."""
        grid = grid_of(box(4700, 3700, 9000, 9000))
        assert tiles(grid) == {(18, 14), (19, 14), (18, 15), (19, 15)}
        assert grid.warnings == ("region 1 (r0): it reaches beyond the image and is clipped",)

    def test_multipolygon_and_ellipse(self) -> None:
        parts = MultiPolygon([box(0, 0, 256, 256), box(1024, 0, 1280, 256)])
        assert tiles(grid_of(parts)) == {(0, 0), (4, 0)}
        assert tiles(grid_of(Point(640, 640).buffer(300))) == {(2, 2), (1, 2), (3, 2), (2, 1), (2, 3)}

    def test_mended(self) -> None:
        bow_tie = Polygon([(0, 0), (1024, 1024), (1024, 0), (0, 1024)])
        grid = grid_of(bow_tie)
        assert tiles(grid) == {
            (0, 0),
            (0, 1),
            (0, 2),
            (0, 3),
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (3, 0),
            (3, 1),
            (3, 2),
            (3, 3),
        }
        (warning,) = grid.warnings
        assert "region 1 (r0): outline mended (self-intersection)" in warning

    def test_one_bad_region_is_named(self) -> None:
        shapes = (LineString([(0, 0), (9, 9)]), box(0, 0, 256, 256), box(6000, 0, 7000, 100), Point(3, 3), Polygon())
        grid = grid_of(*shapes)
        assert tiles(grid) == {(0, 0)}
        assert (len(grid.regions), grid.owner.tolist()) == (5, [1])
        assert len(grid.warnings) == 4
        assert "region 1 (r0): it has no area" in grid.warnings[0]
        assert "region 3 (r2): it lies outside the image" in grid.warnings[1]

    def test_not_a_number(self) -> None:
        with np.errstate(invalid="ignore"):
            nowhere = Polygon([(0, 0), (np.nan, 5), (9, 9)])
        grid = grid_of(nowhere, box(0, 0, 256, 256))
        assert tiles(grid) == {(0, 0)}

    def test_all_bad(self) -> None:
        with pytest.raises(BadRegion) as error:
            grid_of(box(5000, 0, 6000, 100), Point(1, 1))
        assert "r0" in error.value.where
        assert "r1" in error.value.where
        assert error.value.next_step

    def test_too_small_for_a_tile(self) -> None:
        grid = grid_of(box(0, 0, 50, 50))
        assert len(grid) == 0
        assert grid.owner.shape == (0,)
        assert "no tile lies in it" in grid.warnings[0]

    def test_min_overlap(self) -> None:
        shape = box(0, 0, 512 + 64, 256)  # all of columns 0 and 1, a quarter of column 2
        assert tiles(grid_of(shape, min_overlap=1.0)) == {(0, 0), (1, 0)}
        assert tiles(grid_of(shape, min_overlap=0.25)) == {(0, 0), (1, 0), (2, 0)}
        assert tiles(grid_of(shape, min_overlap=0.26)) == {(0, 0), (1, 0)}
        for share in (0.0, 1.01, float("nan")):
            with pytest.raises(UsageError):
                grid_of(shape, min_overlap=share)

    def test_no_regions(self) -> None:
        assert len(grid_of()) == 0


def test_hundred_thousand_candidates_are_fast() -> None:
    """50 drawn outlines of 5,000 points; 75 ms on an idle machine, and room for a busy one."""
    random = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    regions = []
    for x, y in random.uniform(7000, 74000, (50, 2)):
        radii = 6500 * (0.9 + 0.1 * np.sin(7 * angles) + 0.001 * random.normal(size=5000))
        regions.append(region(Polygon(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1))))
    begin = time.perf_counter()
    grid = make_grid(regions, SPEC, 0.25, (81000, 81000))
    assert time.perf_counter() - begin < 1.0
    assert sum(map(len, grid.members)) > 70_000


class TestResolution:
    @pytest.mark.parametrize("mpp", [0.05, 0.12, 0.25, 0.2638])
    def test_fine(self, mpp: float) -> None:
        assert check_resolution(SPEC, mpp) is None

    @pytest.mark.parametrize("mpp", [0.3, 0.499, 0.5045])
    def test_coarser_is_for_review(self, mpp: float) -> None:
        assert "coarser" in (check_resolution(SPEC, mpp) or "")

    def test_too_coarse(self) -> None:
        with pytest.raises(NoCalibration) as error:
            check_resolution(SPEC, 1.0)
        assert "1 µm/px" in error.value.what
        assert error.value.next_step


class TestTissue:
    def picture(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Glass with a little noise, 200 × 300."""
        noise = np.random.default_rng(0).integers(-3, 4, (200, 300, 3))
        return np.asarray(240 + noise, dtype=np.uint8)

    def test_blank(self) -> None:
        assert tissue_region(self.picture(), 16.0).is_empty
        assert tissue_region(np.full((50, 50, 3), 255, np.uint8), 16.0).is_empty

    def test_pale_and_dark_tissue_are_found_in_level_0(self) -> None:
        picture = self.picture()
        picture[20:100, 30:120] = (190, 195, 215)  # haematoxylin
        picture[120:180, 150:280] = (90, 60, 40)  # DAB
        got = tissue_region(picture, 16.0)
        expected = shapely.union_all([box(30, 20, 120, 100), box(150, 120, 280, 180)])
        expected = shapely.transform(expected, lambda points: points * 16.0)
        assert got.is_valid
        assert got.symmetric_difference(expected).area < 0.12 * expected.area
        assert got.intersection(expected).area > 0.97 * expected.area

    def test_specks_and_holes(self) -> None:
        picture = self.picture()
        picture[40:160, 40:160] = (150, 110, 90)
        picture[60:66, 60:66] = 240  # a lumen
        picture[90:130, 90:130] = 240  # a large one
        picture[10:14, 250:254] = 60  # dust
        got = tissue_region(picture, 1.0)
        assert isinstance(got, Polygon)
        assert len(got.interiors) == 1
        assert not got.intersects(Point(252, 12))

    def test_black_is_not_tissue(self) -> None:
        picture = self.picture()
        picture[:, 200:] = 0
        assert tissue_region(picture, 1.0).is_empty
