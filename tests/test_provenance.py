"""The digests and the rule for STALE."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from her2bridge import provenance
from her2bridge.provenance import Standing
from her2bridge.qupath.results import RunStamp
from her2bridge.records import Region

SQUARE = Polygon([(0, 0), (100, 0), (100, 100), (0, 100)])


def digest(geometry: BaseGeometry, *exclusions: BaseGeometry, region_id: str = "r") -> str:
    return provenance.regions_digest([Region(region_id, "name", "Tumor", geometry)], exclusions)


@pytest.mark.parametrize(
    "same",
    [
        Polygon([(100, 100), (100, 0), (0, 0), (0, 100)]),
        Polygon([(0, 100), (0, 0), (100, 0), (100, 100)]),
        Polygon([(0, 0), (100, 0.001), (100, 100), (-0.0, 100)]),
    ],
)
def test_the_same_area_has_the_same_digest(same: Polygon) -> None:
    assert digest(same) == digest(SQUARE)


@pytest.mark.parametrize(
    "other",
    [
        translate(SQUARE, 0.02),
        box(0, 0, 100, 99),
        Polygon(SQUARE.exterior, [box(10, 10, 20, 20).exterior]),
        MultiPolygon([SQUARE, box(200, 200, 210, 210)]),
    ],
)
def test_another_area_has_another(other: BaseGeometry) -> None:
    assert digest(other) != digest(SQUARE)


def test_ids_and_exclusions_count_and_the_order_of_exclusions_does_not() -> None:
    one, two = box(1, 1, 2, 2), box(3, 3, 4, 4)
    assert digest(SQUARE, region_id="q") != digest(SQUARE)
    assert digest(SQUARE, one) != digest(SQUARE)
    assert digest(SQUARE, one, two) == digest(SQUARE, two, one)


def test_tiles_digest() -> None:
    bounds = np.array([[0, 0, 256, 256], [256, 0, 512, 256], [0, 256, 256, 512]], dtype=float)
    names = ["1+", "3+", None]
    base = provenance.tiles_digest(bounds, names)
    order = [2, 0, 1]
    assert provenance.tiles_digest(bounds[order], [names[n] for n in order]) == base
    assert provenance.tiles_digest(bounds + 1e-7, names) == base
    assert provenance.tiles_digest(bounds[:2], names[:2]) != base
    assert provenance.tiles_digest(bounds, ["1+", "2+", None]) != base
    assert provenance.tiles_digest(bounds, ["3+", "1+", None]) != base
    assert provenance.tiles_digest(bounds + 1, names) != base
    assert provenance.tiles_digest(np.empty((0, 4)), []) != base


def test_settings_digest_heeds_values_and_not_their_order() -> None:
    assert provenance.settings_digest({"a": 1, "b": None}) == provenance.settings_digest({"b": None, "a": 1})
    assert provenance.settings_digest({"a": 1, "b": None}) != provenance.settings_digest({"a": 1, "b": 0})


def test_what_a_score_is_worth() -> None:
    stamp = RunStamp("0" * 12, provenance.now(), "0.1.0", "s", "r", "t")

    def now(settings: str = "s", regions: str = "r", tiles: str = "t") -> Standing:
        return provenance.standing(stamp, settings=settings, regions=regions, tiles=tiles)

    assert provenance.standing(None, settings="s", regions="r", tiles="t") is Standing.NEVER_SCORED
    assert now() is Standing.STANDS
    assert now(tiles="x") is Standing.TILES_CHANGED
    assert now(settings="x", tiles="x") is Standing.OTHER_SETTINGS
    assert now(regions="x", settings="x", tiles="x") is Standing.STALE


def test_run_ids_differ() -> None:
    ids = {provenance.new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {12}
