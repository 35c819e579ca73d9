"""Splits keep patients together, and their shares as well as it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from made_datasets import made_slide, made_tiles

from her2bridge.errors import UsageError
from her2bridge.events import Event, Warned
from her2bridge.records import TileClass
from her2bridge.training.dataset import LabelledSlide, TileTable
from her2bridge.training.split import SplitSettings, assign


def world(counts: Sequence[Sequence[int]], per_patient: int = 1) -> tuple[TileTable, list[LabelledSlide]]:
    """Slides with these tiles by class; ``per_patient`` slides in a row are one patient's."""
    slides = [made_slide(f"s{n}", patient=f"p{n // per_patient}") for n in range(len(counts))]
    rows = [
        (n, float(16 * i), float(16 * label), TileClass(label).label)
        for n, of in enumerate(counts)
        for label, count in enumerate(of)
        for i in range(count)
    ]
    return made_tiles(rows, splits=("",) * len(rows)), slides


def parted(
    counts: Sequence[Sequence[int]], per_patient: int = 1, **settings: object
) -> tuple[TileTable, dict[str, set[str]], list[str]]:
    """The tiles, the patients of each split, and what was told."""
    heard: list[Event] = []
    tiles, slides = world(counts, per_patient)
    made = assign(tiles, slides, SplitSettings(**settings), heard.append)  # type: ignore[arg-type]
    patients: dict[str, set[str]] = {split: set() for split in ("train", "val", "test")}
    for slide, split in zip(made.slide.tolist(), made.splits, strict=True):
        patients[split].add(slides[slide].patient)
    return made, patients, [one.message for one in heard if isinstance(one, Warned)]


def shares(made: TileTable) -> dict[str, list[float]]:
    return {
        split: (np.bincount(made.labels[made.rows_of(split)], minlength=6) / made.counts()).tolist()
        for split in ("train", "val", "test")
    }


def test_no_patient_is_in_two_splits_and_the_shares_are_kept() -> None:
    rng = np.random.default_rng(0)
    counts = np.floor(rng.gamma(0.7, 30, (120, 6)) * (rng.random((120, 6)) < 0.6)).astype(int).tolist()
    made, patients, told = parted(counts, per_patient=3)
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 40
    found = shares(made)
    assert np.abs(np.array(found["train"]) - 0.8).max() < 0.1
    assert np.abs(np.array(found["val"]) - 0.1).max() < 0.1
    assert np.abs(np.array(found["test"]) - 0.1).max() < 0.1
    assert told == []
    again, _, _ = parted(counts, per_patient=3)
    assert again.splits == made.splits
    other, _, _ = parted(counts, per_patient=3, seed=3)
    assert other.splits != made.splits


def test_equal_patients_in_equal_parts() -> None:
    made, patients, _ = parted([[10] * 6] * 20)
    assert {split: len(of) for split, of in patients.items()} == {"train": 16, "val": 2, "test": 2}
    _, patients, _ = parted([[10] * 6] * 20, shares=(2, 1, 1))
    assert {split: len(of) for split, of in patients.items()} == {"train": 10, "val": 5, "test": 5}
    assert made.labels.tolist() == world([[10] * 6] * 20)[0].labels.tolist()


def test_each_split_has_each_class_where_that_can_be() -> None:
    """3+ comes from three patients only, and they have little else."""
    counts = [[20, 20, 20, 0, 20, 20]] * 9 + [[0, 0, 0, 20, 0, 1]] * 3
    for seed in range(5):
        made, _, told = parted(counts, seed=seed)
        assert told == []
        for split in ("train", "val", "test"):
            assert (np.bincount(made.labels[made.rows_of(split)], minlength=6) > 0).all()


def test_what_only_one_patient_has_is_learned_from() -> None:
    counts = [[5, 5, 5, 0, 5, 5]] * 5 + [[1, 0, 0, 30, 0, 0]]
    _, patients, told = parted(counts)
    assert "p5" in patients["train"]
    assert told == ["val has no tiles of 3+", "test has no tiles of 3+"]


def test_one_patient() -> None:
    _, patients, told = parted([[4, 4, 4, 4, 4, 4]] * 3, per_patient=3)
    assert patients == {"train": {"p0"}, "val": set(), "test": set()}
    assert told == ["one patient cannot fill 3 splits: all tiles go to train", "val has no tiles", "test has no tiles"]


def test_two_patients() -> None:
    _, patients, told = parted([[9, 9, 9, 9, 9, 9], [3, 3, 3, 3, 3, 3]])
    assert patients == {"train": {"p0"}, "val": {"p1"}, "test": set()}
    assert told == ["2 patients cannot fill 3 splits: all tiles go to train and val", "test has no tiles"]


def test_three_patients_fill_three_splits() -> None:
    _, patients, told = parted([[9] * 6, [3] * 6, [3] * 6])
    assert [len(of) for of in patients.values()] == [1, 1, 1]
    assert patients["train"] == {"p0"}
    assert told == []


def test_test_is_left_empty_rather_than_train_without_a_class() -> None:
    """The real cores: 0, 2+ and 3+ are of one patient each, 1+ and normal of two."""
    cores = [[66, 0, 0, 0, 0, 3], [0, 3, 0, 0, 49, 2], [0, 0, 0, 0, 57, 2], [0, 5, 16, 0, 0, 3], [0, 0, 0, 35, 0, 2]]
    made, patients, told = parted(cores)
    assert (made.counts() == [66, 8, 16, 35, 106, 12]).all()
    assert (np.bincount(made.labels[made.rows_of("train")], minlength=6) > 0).all()
    assert patients["test"] == set()
    assert patients["val"] in ({"p1"}, {"p2"})
    assert told[0].startswith("too few patients: with three splits train would have no tiles of ")
    _, patients, told = parted(cores, test_slides=("s1",))
    assert patients["test"] == {"p1"}
    assert not told[0].startswith("too few patients")


def test_locked_slides_are_test_with_all_of_their_patient() -> None:
    counts = [[10] * 6] * 20
    _, patients, told = parted(counts, per_patient=2, test_slides=("s3.png", "s8"))
    assert patients["test"] == {"p1", "p4"}
    assert len(patients["val"]) == 1
    assert len(patients["train"]) == 7
    assert told == []
    made, patients, told = parted([[1] * 6] * 2, test_slides=("s0", "s1"))
    assert set(made.splits) == {"test"}
    assert told == ["train has no tiles", "val has no tiles"]
    with pytest.raises(UsageError, match="No slide with labelled tiles is called 's99'"):
        parted(counts, test_slides=("s99",))


def test_shares_of_nothing() -> None:
    made, _, told = parted([[3] * 6] * 4, shares=(0, 0, 1))
    assert set(made.splits) == {"test"}
    assert "train has no tiles" in told
    made, patients, _ = parted([[3] * 6] * 4, shares=(3, 1, 0))
    assert [len(of) for of in patients.values()] == [3, 1, 0]
    made, _, _ = parted([[3] * 6] * 4, shares=(0, 0, 1), test_slides=("s0",))
    assert Counter(made.splits) == {"train": 54, "test": 18}


def test_the_papers_way_mixes_tiles_and_says_so() -> None:
    made, patients, told = parted([[100, 30, 0, 50, 70, 9]] * 2, kind="paper")
    assert patients["train"] == patients["val"] == patients["test"] == {"p0", "p1"}
    assert told[0].startswith("--split paper mixes the tiles of every slide")
    assert told[1:] == ["no tile is labelled 2+: a network cannot learn it"]
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        counts = np.bincount(made.labels[made.rows_of(split)], minlength=6)
        assert np.abs(counts - made.counts() * share).max() <= 1
    again, _, _ = parted([[100, 30, 0, 50, 70, 9]] * 2, kind="paper")
    assert again.splits == made.splits
    made, patients, _ = parted([[100] * 6] * 3, kind="paper", test_slides=("s1",))
    assert patients == {"train": {"p0", "p2"}, "val": {"p0", "p2"}, "test": {"p1"}}


@pytest.mark.parametrize(
    "settings", [{"kind": "slide"}, {"shares": (0, 0, 0)}, {"shares": (-1, 1, 1)}, {"shares": (float("nan"), 1, 1)}]
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SplitSettings(**settings)  # type: ignore[arg-type]
