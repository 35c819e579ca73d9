"""Cohorts of slides as counts of tiles: no pictures, only how many tiles of each class a slide has and would be given.

What is simulated, slide by slide; every number is an assumption of ours, not a measurement:

1. **Grades mix within a tumour.** A leading grade has a usual mixture (``_MIXTURES``); a slide's own is a Dirichlet
   draw around it, from nearly pure to patchy (concentration 3 to 60).
2. **Every tumour has a basal level**: up to 4 % of its tiles lie evenly in all four classes (edges, folds, faint
   stain).
3. **Strong staining may be focal**: in one slide of six whose leading grade is not 3+, a part (mostly below a fifth)
   is 3+ with a rim of 2+.
4. **Size**: 200 to 40,000 tumour tiles, evenly on a logarithmic scale; normal tissue and noise beside them.
5. **The slide's score** is the guideline's rule on the true shares as an observer's eye sees them: each share that has
   to reach 10 % is estimated with an error of 0.3 (standard deviation) in its log-odds, so that 10 % is seen as 8 to
   13 % two times in three. Far from 10 % the error changes nothing; near it observers differ, as pathologists do.
6. **The tile network errs** as its confusion matrix says, in one slide more, in another less: each slide has its own
   matrix, a Dirichlet draw around the given one, because stain and scanner are the slide's.

Slides are drawn until there are as many of each score as were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from her2bridge.records import FloatArray, IntArray, TileClass
from her2bridge.scoring.rule import STAINED
from her2bridge.scoring.whspn import shares_of

TABLE_3 = {"train": (22, 17, 21, 15), "val": (2, 2, 2, 2), "test": (25, 25, 28, 22)}
"""Slides of the scores 0, 1+, 2+, 3+ in Han et al. 2022, Table 3."""

_MIXTURES = np.array(
    [[0.92, 0.06, 0.015, 0.005], [0.48, 0.44, 0.07, 0.01], [0.22, 0.34, 0.40, 0.04], [0.08, 0.12, 0.20, 0.60]]
)
"""Usual shares of 0, 1+, 2+, 3+ by leading grade."""

_CONCENTRATION = (3.0, 60.0)
_BASAL = 0.04
_FOCAL_CHANCE, _FOCUS = 1 / 6, (1.2, 10.0)
_FOCUS_MIXTURE = np.array([0.0, 0.05, 0.25, 0.70])
_TUMOUR_TILES = (200, 40_000)
_EYE = 0.3
_MATRIX_CONCENTRATION = 60.0
_NEVER_SEEN = 0.002
"""Put beside each count of a confusion matrix, as a share: what was not seen in a thousand tiles can still happen."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """n simulated slides.

    Attributes:
        scores: what an observer says, 0–3, int64 [n].
        true_tiles: tiles by true class, int64 [n, 6].
        tiles: tiles by the class that the network gives them, int64 [n, 6].
    """

    scores: IntArray
    true_tiles: IntArray
    tiles: IntArray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def shares(self) -> FloatArray:
        """Of 0, 1+, 2+, 3+ among the tiles that the network takes for tumour, float64 [n, 4]."""
        return shares_of(self.tiles)


def simulate_cohort(per_score: Sequence[int], confusion: FloatArray | IntArray, rng: np.random.Generator) -> Cohort:
    """A cohort in random order; equal states of ``rng`` give equal cohorts.

    Args:
        per_score: how many slides of the scores 0, 1+, 2+, 3+.
        confusion: of the tile network, [6, 6], rows truth, columns prediction; counts or shares.
        rng: where chance comes from.

    Raises:
        ValueError: a confusion matrix of another form, with a negative number or an empty row.
    """
    matrix = _as_shares(confusion)
    missing = np.array(per_score, dtype=np.int64)
    slides: list[tuple[int, IntArray, IntArray]] = []
    while missing.any():
        tiles = _tumour(rng)
        score = observed_score(tiles, rng)
        if not missing[score]:
            continue
        missing[score] -= 1
        everything = np.concatenate([tiles, _beside_tumour(int(tiles.sum()), rng)])
        slides.append((score, everything, _classified(everything, matrix, rng)))
    order = rng.permutation(len(slides))
    empty = np.empty((0, len(TileClass)), dtype=np.int64)
    return Cohort(
        scores=np.array([slides[k][0] for k in order], dtype=np.int64),
        true_tiles=np.stack([slides[k][1] for k in order]) if slides else empty,
        tiles=np.stack([slides[k][2] for k in order]) if slides else empty,
    )


def observed_score(tumour: IntArray, rng: np.random.Generator) -> int:
    """The rule's score, 0–3, by an eye that errs, of true tumour tiles [4]."""
    for grade in STAINED:
        share = tumour[grade:].sum() / tumour.sum()
        odds = share / max(1 - share, 1e-12)
        if odds * np.exp(rng.normal(0.0, _EYE)) >= 1 / 9:  # 10 % is odds of 1 to 9
            return int(grade)
    return 0


def _tumour(rng: np.random.Generator) -> IntArray:
    """True tumour tiles of one slide by class, int64 [4]."""
    leading = int(rng.integers(len(_MIXTURES)))
    shares = rng.dirichlet(_MIXTURES[leading] * np.exp(rng.uniform(*np.log(_CONCENTRATION))))
    if leading < TileClass.THREE and rng.random() < _FOCAL_CHANCE:
        focus = rng.beta(*_FOCUS)
        shares = (1 - focus) * shares + focus * _FOCUS_MIXTURE
    basal = rng.uniform(0, _BASAL)
    shares = (1 - basal) * shares + basal / len(shares)
    count = round(np.exp(rng.uniform(*np.log(_TUMOUR_TILES))))
    return np.asarray(rng.multinomial(count, shares / shares.sum()), dtype=np.int64)


def _beside_tumour(tumour: int, rng: np.random.Generator) -> IntArray:
    """Tiles of normal tissue and of noise in the same regions, int64 [2]."""
    shares = rng.dirichlet([6.0, 2.5, 0.7])  # tumour, normal, noise
    return np.asarray(np.rint(tumour * shares[1:] / shares[0]), dtype=np.int64)


def _classified(tiles: IntArray, matrix: FloatArray, rng: np.random.Generator) -> IntArray:
    """What a network makes of true tiles [6]: int64 [6]."""
    found = np.zeros(len(TileClass), dtype=np.int64)
    for count, row in zip(tiles, matrix, strict=True):
        found += rng.multinomial(count, rng.dirichlet(_MATRIX_CONCENTRATION * row))
    return found


def _as_shares(confusion: FloatArray | IntArray) -> FloatArray:
    matrix = np.asarray(confusion, dtype=np.float64)
    size = len(TileClass)
    if matrix.shape != (size, size) or not (matrix >= 0).all() or not (matrix.sum(axis=1) > 0).all():
        raise ValueError(f"a confusion matrix has {size} rows of {size} numbers of at least 0, and none is empty")
    shares = matrix / matrix.sum(axis=1, keepdims=True) + _NEVER_SEEN
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
