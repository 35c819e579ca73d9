"""Two people's labels: which tiles are one, kappa as the books and scikit-learn have it, and lists that are true."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from made_datasets import Row, made_dataset, made_slide
from sklearn.metrics import cohen_kappa_score

from her2bridge.errors import NotEnoughLabels
from her2bridge.qupath.geojson import read_regions
from her2bridge.records import Crop, TileClass
from her2bridge.training.agreement import Agreement, compare_datasets, kappa, write_geojson, write_list

LABELS = tuple(one.label for one in TileClass)
SLIDE = made_slide("s")


def pairs_of(table: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A's and B's labels that make this confusion, rows by A."""
    counts = np.array(table)
    a, b = np.indices(counts.shape)
    return np.repeat(a.ravel(), counts.ravel()), np.repeat(b.ravel(), counts.ravel())


def compared(folder: Path, a: Sequence[Row], b: Sequence[Row]) -> Agreement:
    slides = (SLIDE, made_slide("t"))
    return compare_datasets(made_dataset(folder / "a", slides, a), made_dataset(folder / "b", slides, b))


class TestKappa:
    def test_unweighted_by_hand(self) -> None:
        """140 of 200 alike: p_o = 0.70; rows 120, 60, 20 and columns 100, 60, 40: p_e = 0.30 + 0.09 + 0.02."""
        a, b = pairs_of([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
        assert kappa(a, b) == pytest.approx((0.70 - 0.41) / (1 - 0.41))

    def test_quadratic_by_hand(self) -> None:
        """1 − Σ w·observed / Σ w·expected, w = (i − j)², of four classes though one does not occur."""
        table = np.array([[4, 1, 0, 1], [0, 3, 0, 0], [0, 0, 0, 0], [1, 0, 0, 6]])
        weights = np.square(np.subtract.outer(np.arange(4), np.arange(4)))
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        by_hand = 1 - (weights * table).sum() / (weights * expected).sum()
        assert kappa(*pairs_of(table), quadratic=True) == pytest.approx(by_hand)

    def test_of_a_comparison(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(4)
        a = rng.integers(0, 6, 60)
        b = np.where(rng.random(60) < 0.6, a, rng.integers(0, 6, 60))
        places = list(itertools.product((0.0, 1.0), range(0, 96, 16), range(0, 80, 16)))
        rows_a = [(int(s), float(x), float(y), LABELS[label]) for (s, x, y), label in zip(places, a, strict=True)]
        rows_b = [(int(s), float(x), float(y), LABELS[label]) for (s, x, y), label in zip(places, b, strict=True)]
        found = compared(tmp_path, rows_a, rows_b[::-1])
        both = (a < 4) & (b < 4)
        assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
        assert found.tumour_kappa == pytest.approx(cohen_kappa_score(a[both], b[both], weights="quadratic"))
        assert found.tumour_tiles == both.sum() > 10
        assert found.share == pytest.approx((a == b).mean())
        assert found.confusion[2, 3] == ((a == 2) & (b == 3)).sum()
        assert found.confusion[3, 2] == ((a == 3) & (b == 2)).sum() != found.confusion[2, 3]
        mentions = (a == 2).sum() + (b == 2).sum()
        assert found.by_class[2] == pytest.approx(2 * ((a == 2) & (b == 2)).sum() / mentions)
        assert len(found.disagreements) == (a != b).sum()

    def test_undefined(self, tmp_path: Path) -> None:
        """All of one class to both: no chance to agree by, no kappa, and null in JSON."""
        found = compared(tmp_path, [(0, 0, 0, "noise")], [(0, 0, 0, "noise")])
        assert np.isnan([found.kappa, found.tumour_kappa, found.by_class[0]]).all()
        assert found.by_class[5] == 1.0
        plain = json.loads(json.dumps(found.plain(), allow_nan=False))
        assert plain["kappa"] is None
        assert plain["tumour"] == {"tiles": 0, "quadratic_kappa": None}
        assert plain["agreement_by_class"] == {
            "0": None,
            "1+": None,
            "2+": None,
            "3+": None,
            "normal": None,
            "noise": 1.0,
        }


class TestTheSameTile:
    def test_a_hundredth_of_a_side(self, tmp_path: Path) -> None:
        a = [(0, 0.0, 0.0, "0"), (0, 16.0, 0.0, "1+"), (0, 32.0, 0.0, "2+"), (1, 64.0, 0.0, "3+")]
        b = [(0, 0.15, 0.0, "0"), (0, 16.17, 0.0, "1+"), (0, 32.12, 0.12, "2+"), (0, 64.0, 0.0, "3+")]
        found = compared(tmp_path, a, b)
        assert found.confusion.diagonal().tolist() == [1, 0, 0, 0, 0, 0]
        assert found.only_a.tolist() == found.only_b.tolist() == [0, 1, 1, 1, 0, 0]

    def test_tiles_of_another_size_are_others(self, tmp_path: Path) -> None:
        rows: list[Row] = [(0, 0.0, 0.0, "0"), (0, 16.0, 0.0, "1+")]
        a = made_dataset(tmp_path / "a", [SLIDE], rows)
        b = made_dataset(tmp_path / "b", [SLIDE], [rows[0], (0, 8.0, -8.0, "1+")], sides=np.array([16.1, 32.0]))
        assert compare_datasets(a, b).confusion.diagonal().tolist() == [1, 0, 0, 0, 0, 0]

    def test_it_is_the_centres_that_count(self, tmp_path: Path) -> None:
        """Of tiles a little larger the corners may lie farther off."""
        a = made_dataset(tmp_path / "a", [SLIDE], [(0, 0.0, 0.0, "1+")])
        b = made_dataset(tmp_path / "b", [SLIDE], [(0, -0.215, -0.075, "1+")], sides=np.array([16.15]))
        assert compare_datasets(a, b).tiles == 1

    def test_each_is_taken_once(self, tmp_path: Path) -> None:
        """Of two tiles of A at nearly the place of one of B, the nearer one is it."""
        a = [(0, 0.1, 0.0, "1+"), (0, 0.02, 0.0, "2+"), (0, 0.14, 0.0, "0")]
        found = compared(tmp_path, a, [(0, 0.0, 0.0, "2+")])
        assert found.confusion.sum() == found.confusion[2, 2] == 1
        assert found.only_a.tolist() == [1, 1, 0, 0, 0, 0]
        found = compared(tmp_path, [(0, 0.0, 0.0, "2+")], a)
        assert found.confusion.sum() == found.confusion[2, 2] == 1
        assert found.only_b.tolist() == [1, 1, 0, 0, 0, 0]

    def test_slides_are_known_by_their_fingerprints(self, tmp_path: Path) -> None:
        """Whatever they are called, wherever they stand; and two files of one name are two."""
        renamed = replace(SLIDE, key="x", name="x.png")
        other = replace(made_slide("t"), key=SLIDE.key, name=SLIDE.name)
        a = made_dataset(tmp_path / "a", [SLIDE], [(0, 0.0, 0.0, "1+")])
        b = made_dataset(tmp_path / "b", [other, renamed], [(0, 0.0, 0.0, "3+"), (1, 0.0, 0.0, "1+")])
        found = compare_datasets(a, b)
        assert found.confusion.sum() == found.confusion[1, 1] == 1

    @pytest.mark.parametrize("change", [{"series": 1}, {"view": (Crop(1, 0, 9, 9),)}, {"use_bounds": True}])
    def test_another_view_is_another_image(self, tmp_path: Path, change: dict[str, object]) -> None:
        """There, the same numbers are another place."""
        seen = replace(SLIDE, source=replace(SLIDE.source, **change))
        rows: list[Row] = [(0, 0.0, 0.0, "1+")]
        b = made_dataset(tmp_path / "b", [seen], rows)
        assert compare_datasets(b, b).tiles == 1
        with pytest.raises(NotEnoughLabels, match="no tile in common"):
            compare_datasets(made_dataset(tmp_path / "a", [SLIDE], rows), b)

    def test_one_image_under_two_keys(self, tmp_path: Path) -> None:
        a = made_dataset(tmp_path / "a", [SLIDE, replace(SLIDE, key="again")], [(0, 0, 0, "0"), (1, 16, 0, "1+")])
        b = made_dataset(tmp_path / "b", [SLIDE], [(0, 0, 0, "0"), (0, 16, 0, "1+")])
        assert compare_datasets(a, b).tiles == 2
        assert compare_datasets(b, a).tiles == 2


@pytest.fixture
def some(tmp_path: Path) -> Agreement:
    a = [(0, 0, 0, "1+"), (0, 16.5, 0, "0"), (1, 0, 0, "normal"), (1, 16, 0, "noise"), (0, 32, 0, "2+")]
    b = [(0, 0, 0, "2+"), (0, 16.5, 0, "3+"), (1, 0, 0, "0"), (1, 16, 0, "noise"), (0, 32, 0, "normal")]
    return compared(tmp_path, a, b)


def test_the_gravest_come_first(some: Agreement) -> None:
    found = [(one.slide.key, one.x, one.label_a.label, one.label_b.label) for one in some.disagreements]
    assert found == [
        ("s", 16.5, "0", "3+"),
        ("s", 32.0, "2+", "normal"),
        ("s", 0.0, "1+", "2+"),
        ("t", 0.0, "normal", "0"),
    ]


def test_those_as_grave_go_down_the_slide(tmp_path: Path) -> None:
    places = [(0.0, 32.0), (16.0, 0.0), (48.0, 16.0), (32.0, 16.0)]
    a, b = ([(0, x, y, label) for x, y in places] for label in ("1+", "2+"))
    found = [(one.x, one.y) for one in compared(tmp_path, a, b).disagreements]
    assert found == [(16.0, 0.0), (32.0, 16.0), (48.0, 16.0), (0.0, 32.0)]


def test_the_list(some: Agreement, tmp_path: Path) -> None:
    write_list(tmp_path / "out" / "list.csv", some)
    with (tmp_path / "out" / "list.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert rows[0] == {"image": "s.png", "x": "16.50", "y": "0.00", "size": "16.00", "label_a": "0", "label_b": "3+"}


def test_annotations_for_qupath(some: Agreement, tmp_path: Path) -> None:
    written = write_geojson(tmp_path / "out", some)
    assert [path.name for path in written] == ["s.geojson", "t.geojson"]
    on_s, on_t = map(read_regions, written)
    assert [(one.name, one.geometry.bounds) for one in on_s if one.geometry] == [
        ("A: 0, B: 3+", (16.5, 0.0, 32.5, 16.0)),
        ("A: 2+, B: normal", (32.0, 0.0, 48.0, 16.0)),
        ("A: 1+, B: 2+", (0.0, 0.0, 16.0, 16.0)),
    ]
    assert [one.name for one in on_t] == ["A: normal, B: 0"]
    assert all(one.path_class is None and one.rgb for one in on_s)
    before = written[0].read_bytes()
    assert write_geojson(tmp_path / "out", some)[0].read_bytes() == before
    assert len({one.id for one in (*on_s, *on_t)}) == 4
