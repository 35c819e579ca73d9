"""Simulated cohorts: Table 3's counts, mixed tumours, errors of the tile network, and an eye that errs near 10 %."""

from __future__ import annotations

import numpy as np
import pytest

from her2bridge.records import TileClass, TileCounts
from her2bridge.scoring.rule import resection_score
from her2bridge.synth.cohort import TABLE_3, Cohort, observed_score, simulate_cohort

PERFECT = np.eye(6)
CLEAN = np.eye(6) * 10_000  # counts do as well as shares
LEAKY = np.array(
    [
        [0.90, 0.08, 0.00, 0.00, 0.02, 0.00],
        [0.10, 0.75, 0.13, 0.00, 0.02, 0.00],
        [0.00, 0.10, 0.84, 0.05, 0.01, 0.00],
        [0.00, 0.00, 0.05, 0.94, 0.01, 0.00],
        [0.02, 0.00, 0.00, 0.00, 0.97, 0.01],
        [0.01, 0.00, 0.01, 0.00, 0.02, 0.96],
    ]
)


def rule(tiles: np.ndarray) -> np.ndarray:
    return np.array([resection_score(TileCounts(tuple(row))) for row in tiles.tolist()])


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort([250] * 4, LEAKY, np.random.default_rng(1))


def test_table_3() -> None:
    assert [sum(TABLE_3[part]) for part in ("train", "val", "test")] == [75, 8, 100]
    for part, per_score in TABLE_3.items():
        made = simulate_cohort(per_score, PERFECT, np.random.default_rng(0))
        assert tuple(np.bincount(made.scores, minlength=4)) == per_score, part
        assert made.tiles.shape == made.true_tiles.shape == (len(made), 6)


def test_equal_seeds_give_equal_cohorts() -> None:
    one, same, other = (simulate_cohort([3] * 4, LEAKY, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.tiles, same.tiles)
    np.testing.assert_array_equal(one.scores, same.scores)
    assert not np.array_equal(one.tiles, other.tiles)


def test_slides_come_in_no_order(cohort: Cohort) -> None:
    assert (np.diff(cohort.scores) != 0).sum() > 500


def test_sizes_are_those_of_slides(cohort: Cohort) -> None:
    tumour = cohort.true_tiles[:, :4].sum(axis=1)
    assert 200 <= tumour.min() < 300
    assert 30_000 < tumour.max() <= 40_000
    assert 2_000 < np.median(tumour) < 4_000
    beside = cohort.true_tiles[:, 4:].sum(axis=0) / cohort.true_tiles.sum()
    assert 0.1 < beside[TileClass.NORMAL - 4] < 0.5
    assert 0.02 < beside[TileClass.NOISE - 4] < 0.2


def test_no_tile_is_lost(cohort: Cohort) -> None:
    np.testing.assert_array_equal(cohort.tiles.sum(axis=1), cohort.true_tiles.sum(axis=1))


def test_shares_are_of_what_the_network_takes_for_tumour(cohort: Cohort) -> None:
    np.testing.assert_allclose(cohort.shares.sum(axis=1), 1)
    np.testing.assert_allclose(cohort.shares[:, 3], cohort.tiles[:, 3] / cohort.tiles[:, :4].sum(axis=1))


def test_tumours_mix(cohort: Cohort) -> None:
    """Nearly every slide has all four classes; some 3+ slides are mostly something else, some are nearly pure."""
    shares = cohort.true_tiles[:, :4] / cohort.true_tiles[:, :4].sum(axis=1, keepdims=True)
    assert ((shares > 0).sum(axis=1) == 4).mean() > 0.8
    strong = shares[cohort.scores == 3, 3]
    assert (strong < 0.3).mean() > 0.1
    assert (strong > 0.7).mean() > 0.05


def test_strong_staining_may_be_focal(cohort: Cohort) -> None:
    """Some slides of a lower score have a few per cent of 3+, and more of 2+ would not explain it."""
    shares = cohort.true_tiles[:, :4] / cohort.true_tiles[:, :4].sum(axis=1, keepdims=True)
    below = shares[cohort.scores < 3]
    assert 0.03 < ((below[:, 3] > 0.04) & (below[:, 3] > below[:, 2])).mean() < 0.3


def test_the_network_errs_as_its_matrix_says() -> None:
    """On the average; and from slide to slide by more than chance alone: the errors of a slide have one cause."""
    made = simulate_cohort([150] * 4, LEAKY, np.random.default_rng(3))
    expected = made.true_tiles @ LEAKY
    np.testing.assert_allclose(made.tiles.sum(axis=0) / expected.sum(axis=0), 1, atol=0.12)
    p = expected / expected.sum(axis=1, keepdims=True)
    by_chance = np.sqrt(expected * (1 - p))
    assert np.median(np.abs(made.tiles - expected)[:, 1] / by_chance[:, 1]) > 2


def test_a_network_without_errors_leaves_only_the_eyes(cohort: Cohort) -> None:
    made = simulate_cohort([100] * 4, CLEAN, np.random.default_rng(4))
    agreement = (rule(made.true_tiles) == made.scores).mean()
    assert 0.85 < agreement < 0.99
    assert (rule(cohort.tiles) == cohort.scores).mean() < agreement


@pytest.mark.parametrize(
    ("tiles", "low", "high"),
    [
        ((1000, 0, 0, 0), 0.0, 0.0),
        ((980, 0, 0, 20), 0.0, 0.0),
        ((930, 0, 0, 70), 0.03, 0.20),
        ((900, 0, 0, 100), 0.42, 0.58),
        ((870, 0, 0, 130), 0.75, 0.90),
        ((600, 0, 0, 400), 1.0, 1.0),
        ((0, 0, 0, 1000), 1.0, 1.0),
    ],
)
def test_the_eye_errs_near_ten_percent(tiles: tuple[int, ...], low: float, high: float) -> None:
    rng = np.random.default_rng(11)
    positive = np.mean([observed_score(np.array(tiles), rng) == 3 for _ in range(1000)])
    assert low <= positive <= high


def test_the_eye_counts_stronger_tiles_with_a_grade() -> None:
    """8 % are 2+ and 8 % are 3+: 16 % are 2+ or stronger, which few eyes take for less than 10 %."""
    rng = np.random.default_rng(12)
    seen = [observed_score(np.array([840, 0, 80, 80]), rng) for _ in range(1000)]
    assert np.mean([score >= 2 for score in seen]) > 0.93


@pytest.mark.parametrize(
    "matrix", [np.eye(4), np.eye(6) - 0.1, np.diag([1, 1, 1, 0, 1, 1]), np.full((6, 6), np.nan), np.zeros(36)]
)
def test_what_is_no_confusion_matrix(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        simulate_cohort([1, 1, 1, 1], matrix, np.random.default_rng(0))


def test_a_cohort_of_none() -> None:
    made = simulate_cohort([0, 0, 0, 0], PERFECT, np.random.default_rng(0))
    assert (len(made), made.tiles.shape, made.shares.shape) == (0, (0, 6), (0, 4))
