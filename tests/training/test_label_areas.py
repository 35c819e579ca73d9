"""Which label counts where, and which tiles lie in it."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from her2bridge.training.label_areas import LabelArea, TissueShares, lay_tiles, resolve

SIZE = (1000, 800)


def area(label: int, geometry: BaseGeometry, title: str = "a") -> LabelArea:
    return LabelArea(f"id of {title}", title, label, geometry)


def lay(*areas: LabelArea, side: float = 10.0, offset: tuple[float, float] = (0.0, 0.0), inside: float = 0.9):  # type: ignore[no-untyped-def]
    return lay_tiles(areas, side, SIZE, offset, inside)


def test_the_inner_one_wins_through_all_depths() -> None:
    outer, middle, inner = box(0, 0, 100, 100), box(10, 10, 90, 90), box(20, 20, 30, 30)
    found, conflicts = resolve([area(3, outer), area(2, middle), area(3, inner)])
    assert not conflicts
    assert [one.geometry.area for one in found] == [10_000 - 6_400, 6_400 - 100, 100]
    assert found[0].geometry.equals(outer.difference(middle))


def test_nearly_inner_is_inner() -> None:
    outer, inner = box(0, 0, 100, 100), box(-1, 40, 30, 60)
    found, conflicts = resolve([area(3, outer), area(2, inner)])
    assert not conflicts
    assert found[1].geometry.equals(inner)
    assert found[0].geometry.area == 10_000 - 600


def test_a_large_inner_one_is_inner() -> None:
    """97 % of the outer one lies in it; but it lies wholly in the outer one, and not the other way round."""
    found, conflicts = resolve([area(3, box(0, 0, 100, 100)), area(2, box(0, 0, 100, 97))])
    assert not conflicts
    assert [one.geometry.area for one in found] == [300, 9_700]


@pytest.mark.parametrize("other", [box(50, 0, 150, 100), box(0, 0, 100, 100), box(1, 0, 101, 100)])
def test_conflicts_are_told_and_left_out(other: BaseGeometry) -> None:
    first = box(0, 0, 100, 100)
    found, (conflict,) = resolve([area(0, first, "gland"), area(1, other, "rim")])
    overlap = first.intersection(other)
    assert (conflict.first, conflict.second, conflict.area) == ("gland (0)", "rim (1+)", overlap.area)
    assert [one.geometry.area for one in found] == [10_000 - overlap.area] * 2
    assert not any(one.geometry.intersection(overlap).area for one in found)


def test_what_an_inner_one_has_is_no_conflict() -> None:
    found, (conflict,) = resolve(
        [area(0, box(0, 0, 100, 100)), area(1, box(50, 0, 150, 100)), area(2, box(60, 10, 70, 20))]
    )
    assert conflict.area == 5_000 - 100
    assert [one.geometry.area for one in found] == [5_000, 5_000, 100]


def test_one_label_twice_and_mere_neighbours_are_no_conflict() -> None:
    found, conflicts = resolve([area(1, box(0, 0, 50, 50)), area(1, box(25, 0, 75, 50)), area(2, box(75, 0, 99, 50))])
    assert not conflicts
    assert [one.geometry.area for one in found] == [2_500, 2_500, 1_200]


def test_what_is_cut_out_and_what_is_fixed() -> None:
    found, _ = resolve(
        [area(1, box(0, 0, 100, 100)), area(2, box(200, 0, 300, 100))],
        [box(0, 0, 100, 50), box(190, 0, 310, 100)],
        [area(1, box(0, 50, 10, 60)), area(3, box(10, 50, 20, 60)), area(-1, box(20, 50, 30, 60))],
    )
    assert [one.geometry.area for one in found] == [5_000 - 200, 0]


def test_tiles_by_their_share() -> None:
    laid = lay(area(2, box(0, 0, 39, 25)))
    assert laid.origins.tolist() == [[10.0 * i, 10.0 * j] for j in range(2) for i in range(4)]  # 90 % is enough
    assert set(laid.labels.tolist()) == {2}
    assert laid.on_edges == 4
    assert len(lay(area(2, box(0, 0, 38, 25))).labels) == 6
    assert len(lay(area(2, box(0, 0, 38, 25)), inside=0.51).labels) == 8
    assert len(lay(area(2, box(0, 0, 38, 26)), inside=0.51).labels) == 11


def test_many_tiles_are_those_measured_one_by_one() -> None:
    rng = np.random.default_rng(1)
    blob = shapely.union_all([Point(*rng.uniform(100, 700, 2)).buffer(rng.uniform(20, 90)) for _ in range(12)])
    ring = blob.difference(Point(400, 400).buffer(60))
    side, offset = 13.7, (4.0, 9.0)
    laid = lay(area(3, ring), side=side, offset=offset)
    wanted = []
    for j in range(-1, 60):
        for i in range(-1, 75):
            x, y = i * side + 4, j * side + 9
            if ring.intersection(box(x, y, x + side, y + side)).intersection(box(0, 0, *SIZE)).area >= 0.9 * side**2:
                wanted.append((round(x, 6), round(y, 6)))
    assert len(wanted) > 200
    assert sorted(map(tuple, laid.origins.round(6).tolist())) == sorted(wanted)


def test_the_image_ends_where_it_ends() -> None:
    laid = lay(area(1, box(950, 750, 1100, 900)), side=30.0)
    assert laid.origins.tolist() == [[960.0, 750.0]]


def test_touching_areas_of_one_label_are_one() -> None:
    left, right = area(1, box(0, 0, 15, 20), "left"), area(1, box(15, 0, 40, 20), "right")
    laid = lay(area(2, box(100, 0, 120, 20)), left, right)
    regions = dict(zip(map(tuple, laid.origins.tolist()), laid.regions.tolist(), strict=True))
    assert regions[0.0, 0.0] == 1
    assert regions[10.0, 0.0] == 1  # half of each: the smaller one
    assert regions[20.0, 0.0] == 2
    assert regions[100.0, 0.0] == 0
    assert len(laid.labels) == 8 + 4
    nested = lay(area(1, box(0, 0, 90, 90)), area(1, box(30, 30, 50, 50)))
    assert nested.regions.tolist().count(1) == 4


def test_nothing_to_lay() -> None:
    assert len(lay().labels) == 0
    laid = lay(area(1, shapely.Polygon()), area(2, box(2000, 0, 3000, 100)), area(3, box(0, 0, 3, 3)))
    assert (len(laid.labels), laid.regions.shape, laid.on_edges) == (0, (0,), 1)


def test_shares_of_tissue() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:6, 4:9] = True
    shares = TissueShares(mask, 8.0)
    origins = np.array([[0, 0], [32, 16], [28, 12], [64, 40], [-8, -8], [152, 72]], dtype=np.float64)
    assert shares.of(origins, 16.0).tolist() == pytest.approx([0, 1, 0.75**2, 0.25, 0, 0])
    mask[:] = True
    assert TissueShares(mask, 8.0).of(origins, 16.0).tolist() == pytest.approx([1, 1, 1, 1, 0.25, 0.25])
    assert TissueShares(mask, 8.0).of(np.array([[3.3, 5.7]]), 17.3).tolist() == pytest.approx([1.0])
