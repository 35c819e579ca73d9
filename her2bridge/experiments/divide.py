"""Which tiles an experiment takes, and how a repeat divides them into those to learn from and those held out."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.experiments.streams import Stream, rng_of
from her2bridge.records import IntArray, TileClass
from her2bridge.training.dataset import Dataset

SplitKind = Literal["patient", "paper"]
"""``patient``: no patient on both sides. ``paper``: tiles mixed, as in Han et al. 2022: tiles of one slide then lie on
both sides, and flatter what is measured."""

HELD_OUT = 0.2
"""Share of the patients, or tiles, that a repeat holds out: validation and test of the paper's 8:1:1 together."""

ENOUGH_PATIENTS = 3
"""From so many on, patients are kept apart unless the paper's way is asked for."""

_DRAWS = 200


class Division(NamedTuple):
    """Places (within the experiment's rows) of tiles to learn from and of tiles held out, int64, ascending."""

    train: IntArray
    held_out: IntArray


def rows_for(dataset: Dataset, max_tiles: int | None, seed: int) -> IntArray:
    """The rows that an experiment takes: train and val, or ``max_tiles`` of them, class and patient in proportion.

    The dataset's test tiles stay untouched: on them what an experiment led to can still be measured.
    """
    rows = dataset.tiles.rows_of("train", "val")
    if max_tiles is None or max_tiles >= len(rows):
        return rows
    rng = rng_of(Stream.ROWS, seed, len(rows))
    strata: dict[tuple[int, str], list[int]] = {}
    for place, row in enumerate(rows.tolist()):
        strata.setdefault((int(dataset.tiles.labels[row]), dataset.patients[row]), []).append(place)
    rank = np.empty(len(rows))
    for places in strata.values():  # evenly spread over 0 to 1, so that the lowest ranks take of each its share
        rank[places] = (rng.permutation(len(places)) + rng.random(len(places))) / len(places)
    return np.sort(rows[np.argsort(rank)[:max_tiles]])


def kind_of_split(wanted: str | None, patients: int) -> SplitKind:
    """What ``--split`` stands for with so many patients; None keeps them apart where there are three or more.

    Raises:
        UsageError: no such split, or one patient who cannot be parted.
    """
    if wanted is None:
        return "patient" if patients >= ENOUGH_PATIENTS else "paper"
    if wanted not in get_args(SplitKind):
        raise UsageError(
            f"There is no split called {wanted!r}.",
            where="--split",
            next_step="Give patient or paper, or leave it out.",
        )
    if wanted == "patient" and patients < 2:
        raise UsageError(
            "One patient cannot be divided by patient.",
            where="--split patient",
            next_step="Label slides of more patients, or give --split paper, which flatters.",
        )
    return "paper" if wanted == "paper" else "patient"


def divide(labels: IntArray, groups: IntArray, rng: np.random.Generator, *, where: str) -> Division:
    """Hold a fifth of the groups out, at random, so that every class can be learned and, if possible, is held out too.

    Args:
        labels: classes of the n tiles.
        groups: what stays together: the number of each tile's patient, or of the tile itself; int64 [n].
        rng: where chance comes from.
        where: the dataset, for the error.

    Raises:
        NotEnoughLabels: a class that cannot be learned without the tiles of one group.
    """
    units = np.unique(groups)
    count = min(max(1, round(HELD_OUT * len(units))), len(units) - 1)
    wanted = set(labels.tolist())
    second_best = None
    for _ in range(_DRAWS):
        held = np.isin(groups, rng.choice(units, count, replace=False))
        if set(labels[~held].tolist()) != wanted:
            continue
        found = Division(np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64))
        if set(labels[held].tolist()) == wanted:
            return found
        second_best = second_best or found
    if second_best is not None:
        return second_best
    labelled = ", ".join(TileClass(label).label for label in sorted(wanted))
    raise NotEnoughLabels(
        f"No division into tiles to learn from and tiles held out leaves every class ({labelled}) to be learned.",
        where=where,
        next_step="Label each class on slides of two patients or more, or give --split paper, which flatters.",
    )
